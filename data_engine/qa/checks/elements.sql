-- title: Elements that cannot be read
-- What a text is made of is JSON, with lists of objects, attributes, actions and names.
SELECT annotation_id, image_id, source, text[:200] AS text
FROM annotations
WHERE kind = 'text' AND granularity = 'elements' AND NOT coalesce(CASE WHEN json_valid(text) THEN
    json_type(text, ['$.objects', '$.attributes', '$.actions', '$.names']) = ['ARRAY', 'ARRAY', 'ARRAY', 'ARRAY'] END, false)
