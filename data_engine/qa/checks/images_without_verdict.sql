-- title: Images with statements and no verdict
-- by: shard
-- Of the last round, where anything was filtered.
SELECT a.image_id, count(*) AS statements
FROM annotations a ANTI JOIN (SELECT * FROM verdicts WHERE round = (SELECT max(round) FROM judged)) v USING (image_id)
WHERE EXISTS (SELECT 1 FROM judged)
GROUP BY a.image_id
