-- title: Masks of another size than their image
-- by: shard
SELECT a.annotation_id, a.image_id, a.source, a.mask.size AS size, i.height, i.width
FROM annotations a JOIN images i USING (image_id)
WHERE a.mask IS NOT NULL
    AND (a.mask.size[1] IS DISTINCT FROM i.height OR a.mask.size[2] IS DISTINCT FROM i.width)
