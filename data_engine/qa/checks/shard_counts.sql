-- title: Files that do not hold what they say
-- The rows of a file against the count in its own provenance; and the images that a source looked at against
-- those of the shard.
SELECT s.file, s.rows, s.rows_told, i.rows AS images, s.images_told
FROM shards s LEFT JOIN shards i ON i.tables = 'images' AND i.shard = s.shard AND s.tables = 'annotations'
WHERE s.rows <> s.rows_told OR i.rows <> s.images_told
