-- Statements about the whole image: captions, image-level classes, all the text read in it.
SELECT annotation_id, image_id, granularity, text, parent_id, score, source, round
FROM annotations
WHERE kind = 'text' AND text IS NOT NULL AND (granularity IS NULL OR granularity NOT IN ('change', 'elements', 'member'))
