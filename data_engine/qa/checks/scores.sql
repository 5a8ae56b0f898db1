-- title: Scores outside of 0 to 1
SELECT annotation_id, image_id, source, kind, granularity, score
FROM annotations
WHERE score < 0 OR score > 1
