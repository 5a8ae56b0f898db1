-- title: What each round of verdicts changed
-- key: round, source, change
-- Statements that a round kept and the one before did not, or the other way round: `new` were not judged before,
-- `regained` had been dropped, `lost` had been kept, `gone` had been kept and were not judged again.
WITH rounds AS (
    SELECT * FROM (
        SELECT round, lag(round) OVER (ORDER BY round) AS earlier FROM (SELECT DISTINCT round FROM verdicts)
    ) WHERE earlier IS NOT NULL
), later AS (
    SELECT v.round, hash(v.annotation_id) AS id, v.source, v.kept FROM verdicts v JOIN rounds r ON r.round = v.round
), earlier AS (
    SELECT r.round, hash(v.annotation_id) AS id, v.source, v.kept FROM verdicts v JOIN rounds r ON r.earlier = v.round
)
SELECT
    round, coalesce(later.source, earlier.source) AS source,
    CASE WHEN earlier.id IS NULL THEN 'new' WHEN later.id IS NULL THEN 'gone' WHEN later.kept THEN 'regained'
        ELSE 'lost' END AS change,
    count(*) AS statements
FROM later FULL JOIN earlier USING (round, id)
WHERE coalesce(later.kept, false) <> coalesce(earlier.kept, false)
GROUP BY ALL ORDER BY ALL
