-- What is said of images, of the statements that count (`statements`): texts, regions with a text, phrases with a
-- box. Left out is what is about other statements: masks, scores, elements, changes, members of fused regions.
SELECT annotation_id, image_id, kind, granularity, text, parent_id, span, box, score, source, round
FROM statements
WHERE text IS NOT NULL AND mask IS NULL
    AND (kind = 'text' OR kind IN ('region', 'phrase') AND box IS NOT NULL)
    AND (granularity IS NULL OR granularity NOT IN ('change', 'elements', 'member'))
