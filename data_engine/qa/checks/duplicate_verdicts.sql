-- title: Statements judged twice in a round
-- by: shard
SELECT annotation_id, round, count(*) AS verdicts
FROM verdicts
GROUP BY annotation_id, round HAVING count(*) > 1
