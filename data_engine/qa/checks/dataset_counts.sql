-- title: Counts of dataset.json that are not those of the shards
SELECT what, told, found FROM (
    SELECT 'images' AS what, (SELECT images FROM dataset)::VARCHAR AS told,
        (SELECT coalesce(sum(rows), 0) FROM shards WHERE tables = 'images')::VARCHAR AS found
    UNION ALL
    SELECT 'shards', (SELECT shards FROM dataset)::VARCHAR,
        (SELECT count(*) FROM shards WHERE tables = 'images' AND state <> 'missing')::VARCHAR
    UNION ALL
    SELECT 'labels', label, (SELECT max(stage) FROM shards WHERE tables = 'annotations' AND stage = label)
    FROM (SELECT unnest(labels) AS label FROM dataset)
) WHERE told IS DISTINCT FROM found
