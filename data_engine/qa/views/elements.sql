-- What a text is made of, as counts (specialists/text_elements.py). Rows that are no JSON are left out.
SELECT
    annotation_id, image_id, parent_id AS text_id,
    json_array_length(text, '$.objects')::INTEGER AS objects,
    json_array_length(text, '$.attributes')::INTEGER AS attributes,
    json_array_length(text, '$.actions')::INTEGER AS actions,
    json_array_length(text, '$.names')::INTEGER AS names,
    TRY_CAST(text->>'$.object_complexity' AS INTEGER) AS object_complexity,
    TRY_CAST(text->>'$.action_complexity' AS INTEGER) AS action_complexity,
    source, round
FROM annotations
WHERE kind = 'text' AND granularity = 'elements' AND CASE WHEN json_valid(text) THEN true ELSE false END
