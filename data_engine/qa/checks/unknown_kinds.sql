-- title: Statements of no known kind, or about no image
SELECT annotation_id, image_id, source, kind, granularity
FROM annotations
WHERE kind IS NULL OR kind NOT IN ('text', 'region', 'phrase', 'image')
    OR annotation_id IS NULL OR image_id IS NULL OR source IS NULL
