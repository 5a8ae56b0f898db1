-- title: What filters dropped
-- key: round, filter
-- Verdicts of every round by the filter that dropped the statement, the most first (`parent`: it fell with what
-- it hangs on), then those kept. `avg_value` is the mean of what the filter measured.
SELECT
    round, coalesce(dropped_by, 'kept') AS filter, count(*) AS statements,
    100 * count(*) / sum(count(*)) OVER (PARTITION BY round) AS percent, avg(value) AS avg_value
FROM verdicts
GROUP BY round, dropped_by
ORDER BY round, dropped_by IS NULL, statements DESC, filter
