-- title: What each round changed
-- key: round, source, change
-- Statements that a round kept and the one before did not, or the other way round: `new` were not judged before,
-- `regained` had been dropped, `lost` had been kept, `gone` had been kept and were not judged again.
WITH rounds AS (
    SELECT round, lag(round) OVER (ORDER BY round) AS earlier FROM (SELECT DISTINCT round FROM verdicts)
), pairs AS (
    SELECT r.round, coalesce(n.source, o.source) AS source, o.kept AS before, n.kept AS after
    FROM rounds r, (SELECT * FROM verdicts) n
    FULL JOIN (SELECT v.*, x.round AS next FROM verdicts v JOIN rounds x ON x.earlier = v.round) o
        ON o.annotation_id = n.annotation_id AND o.next = n.round
    WHERE r.earlier IS NOT NULL AND r.round = coalesce(n.round, o.next)
)
SELECT
    round, source,
    CASE WHEN before IS NULL THEN 'new' WHEN after IS NULL THEN 'gone' WHEN after THEN 'regained' ELSE 'lost' END
        AS change,
    count(*) AS statements
FROM pairs
WHERE coalesce(before, false) <> coalesce(after, false)
GROUP BY ALL ORDER BY ALL
