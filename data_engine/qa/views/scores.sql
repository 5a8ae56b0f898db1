-- What a scorer thinks of a statement: image-text or crop-text similarity.
SELECT annotation_id, image_id, kind AS parent_kind, parent_id, score, source, round
FROM annotations
WHERE text IS NULL AND box IS NULL AND mask IS NULL AND parent_id IS NOT NULL
