-- Region-text pairs, proposals (no text) included. A further text of a region names it in parent_id.
SELECT annotation_id, image_id, granularity, text, parent_id, box, quad, score, source, round
FROM annotations
WHERE kind = 'region' AND box IS NOT NULL AND mask IS NULL
