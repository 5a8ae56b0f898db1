-- title: Images of which not every statement was judged
-- by: shard
-- In the last round, of the sources that it judged, by image and source. Images without any verdict are
-- `images_without_verdict`.
WITH verdict_rows AS (
    SELECT image_id, source, count(*) AS verdicts FROM verdicts
    WHERE round = (SELECT max(round) FROM judged)
    GROUP BY ALL
), statement_rows AS (
    SELECT image_id, source, count(*) AS statements FROM annotations
    WHERE source IN (SELECT source FROM judged WHERE round = (SELECT max(round) FROM judged))
        AND image_id IN (SELECT image_id FROM verdict_rows)
    GROUP BY ALL
)
SELECT image_id, source, coalesce(statements, 0) AS statements, coalesce(verdicts, 0) AS verdicts
FROM statement_rows FULL JOIN verdict_rows USING (image_id, source)
WHERE statements IS DISTINCT FROM verdicts
