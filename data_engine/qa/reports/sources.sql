-- title: Statements by source
-- key: source, kind, granularity, what
-- All rows of every source, and those of them that count.
SELECT
    source, kind, granularity, what, sum(said)::BIGINT AS statements, sum(counted)::BIGINT AS counted,
    sum(total) / nullif(sum(scored), 0) AS avg_score
FROM (
    SELECT source, kind, granularity, statement_form(text, box, mask) AS what,
        count(*) AS said, 0 AS counted, sum(score) AS total, count(score) AS scored
    FROM annotations GROUP BY ALL
    UNION ALL
    SELECT source, kind, granularity, statement_form(text, box, mask), 0, count(*), 0, 0
    FROM statements GROUP BY ALL
)
GROUP BY ALL ORDER BY ALL
