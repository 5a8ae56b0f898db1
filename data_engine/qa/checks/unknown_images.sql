-- title: Statements about images that their shard does not have
-- by: shard
SELECT image_id, source, count(*) AS statements
FROM annotations a ANTI JOIN images i USING (image_id)
GROUP BY ALL
