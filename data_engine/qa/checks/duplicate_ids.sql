-- title: Statements that share an id
-- by: shard
-- With `unknown_images` and `duplicate_images` this holds over all shards: an id is of one image.
SELECT annotation_id, count(*) AS statements, min(source) AS source, max(source) AS other_source
FROM annotations
GROUP BY annotation_id HAVING count(*) > 1
