-- title: What each round of verdicts changed
-- key: round, source, change
-- Of the sources that two rounds in a row judged, statements that one kept and the other did not: `new` were not judged
-- before, `regained` had been dropped, `lost` had been kept, `gone` had been kept and were not judged again. What a
-- round of refinement made of the statements before it is in `merged` and `composition`.
WITH judged_sources AS (
    SELECT DISTINCT round, source FROM verdicts
), rounds AS (
    SELECT n.round, o.round AS earlier, n.source FROM judged_sources n
    JOIN (SELECT round, lag(round) OVER (ORDER BY round) AS earlier FROM (SELECT DISTINCT round FROM verdicts)) s
        ON s.round = n.round
    JOIN judged_sources o ON o.round = s.earlier AND o.source = n.source
), later AS (
    SELECT v.round, hash(v.annotation_id) AS id, v.source, v.kept
    FROM verdicts v JOIN rounds r ON r.round = v.round AND r.source = v.source
), before AS (
    SELECT r.round, hash(v.annotation_id) AS id, v.source, v.kept
    FROM verdicts v JOIN rounds r ON r.earlier = v.round AND r.source = v.source
)
SELECT
    round, coalesce(later.source, before.source) AS source,
    CASE WHEN before.id IS NULL THEN 'new' WHEN later.id IS NULL THEN 'gone' WHEN later.kept THEN 'regained'
        ELSE 'lost' END AS change,
    count(*) AS statements
FROM later FULL JOIN before USING (round, id)
WHERE coalesce(later.kept, false) <> coalesce(before.kept, false)
GROUP BY ALL ORDER BY ALL
