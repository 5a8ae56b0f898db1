-- title: Images of which not every statement was judged
-- by: shard
-- By round, image and source, of the sources that the round judged. Images without any verdict are
-- `images_without_verdict`.
WITH verdict_rows AS (
    SELECT round, image_id, source, count(*) AS verdicts FROM verdicts GROUP BY ALL
), statement_rows AS (
    SELECT j.round, a.image_id, a.source, count(*) AS statements FROM annotations a JOIN judged j USING (source)
    GROUP BY ALL
)
SELECT round, image_id, source, coalesce(statements, 0) AS statements, coalesce(verdicts, 0) AS verdicts
FROM statement_rows FULL JOIN verdict_rows USING (round, image_id, source)
WHERE statements IS DISTINCT FROM verdicts AND (round, image_id) IN (SELECT (round, image_id) FROM verdict_rows)
