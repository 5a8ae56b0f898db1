-- title: Scores by source
-- key: source, kind, granularity, bin
-- Counts of statements in 20 bins of their score. Statements without a score (people's) are left out.
SELECT
    source, kind, coalesce(granularity, '') AS granularity,
    greatest(0, least(floor(20 * score), 19))::INTEGER AS bin,
    min(bin) / 20 AS low, (min(bin) + 1) / 20 AS high, count(*) AS statements
FROM statements WHERE score IS NOT NULL
GROUP BY ALL ORDER BY ALL
