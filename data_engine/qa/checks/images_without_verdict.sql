-- title: Images with statements and no verdict
-- by: shard
-- Images of which a source that a round judged has said something, and of which that round judged nothing.
SELECT j.round, a.image_id, count(*) AS statements
FROM annotations a JOIN judged j USING (source) ANTI JOIN verdicts v ON v.image_id = a.image_id AND v.round = j.round
GROUP BY ALL
