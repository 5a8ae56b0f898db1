-- title: Statements whose parent is not there
-- by: shard
-- A parent must be a statement about the same image.
SELECT a.annotation_id, a.image_id, a.source, a.kind, a.granularity, a.parent_id
FROM annotations a LEFT JOIN annotations p ON p.annotation_id = a.parent_id
WHERE a.parent_id IS NOT NULL AND p.image_id IS DISTINCT FROM a.image_id
