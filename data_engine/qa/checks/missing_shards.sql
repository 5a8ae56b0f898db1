-- title: Files that are missing
-- Every source, and every round of verdicts, has a file for each shard of images. Running the stage again makes
-- those that are missing.
SELECT tables, stage, shard, file FROM shards WHERE state = 'missing'
