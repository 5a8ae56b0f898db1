-- title: Texts longer than any that is taken
-- The door to the table (data_engine/annotation.py) cuts at 100,000 characters, at 2,000 of regions and phrases.
SELECT annotation_id, image_id, source, kind, granularity, length(text) AS characters
FROM annotations
WHERE strlen(text) > 2000 AND length(text) > CASE WHEN kind = 'text' THEN 100000 ELSE 2000 END
