-- What a text is made of, as counts (specialists/text_elements.py). Rows that are no JSON are left out.
SELECT
    annotation_id, image_id, parent_id AS text_id,
    counts[1]::INTEGER AS objects, counts[2]::INTEGER AS attributes, counts[3]::INTEGER AS actions,
    counts[4]::INTEGER AS names,
    TRY_CAST(degrees[1] AS INTEGER) AS object_complexity, TRY_CAST(degrees[2] AS INTEGER) AS action_complexity,
    source, round
FROM (
    SELECT *, json_array_length(text, ['$.objects', '$.attributes', '$.actions', '$.names']) AS counts,
        json_extract_string(text, ['$.object_complexity', '$.action_complexity']) AS degrees
    FROM annotations
    WHERE kind = 'text' AND granularity = 'elements' AND CASE WHEN json_valid(text) THEN true ELSE false END
)
