-- title: What each round of verdicts kept
-- key: round, source
-- How many statements of each source a round judged, and how many of them it kept.
SELECT
    round, source, count(*) AS judged, count(*) FILTER (kept) AS kept,
    100 * count(*) FILTER (kept) / count(*) AS percent
FROM verdicts
GROUP BY ALL ORDER BY ALL
