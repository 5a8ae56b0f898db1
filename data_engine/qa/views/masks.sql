-- Masks (COCO run-length encoding) with the region or phrase that each belongs to.
SELECT annotation_id, image_id, kind AS parent_kind, parent_id, mask, box, score, source, round
FROM annotations
WHERE mask IS NOT NULL
