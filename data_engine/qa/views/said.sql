-- What is said of images, of the statements that count (`statements`): texts, regions with a text, phrases with a
-- box. Left out is what is about other statements: masks and scores, which have no text; elements, changes, members.
SELECT annotation_id, image_id, kind, granularity, text, parent_id, span, box, score, source, round
FROM statements
WHERE text IS NOT NULL AND kind IN ('text', 'region', 'phrase') AND (kind = 'text' OR box IS NOT NULL)
    AND (granularity IS NULL OR granularity NOT IN ('change', 'elements', 'member'))
