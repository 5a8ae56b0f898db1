-- title: The data set in figures
-- key: what
-- Images, statements and failures; `counted` statements are those that the other tables are about.
SELECT what, n FROM (
    SELECT 1 AS place, 'images' AS what, count(*) AS n FROM images
    UNION ALL SELECT 2, 'statements', count(*) FROM annotations
    UNION ALL SELECT 3, 'statements counted', count(*) FROM statements
    UNION ALL SELECT 4, 'sources', count(DISTINCT source) FROM annotations
    UNION ALL SELECT 5, 'rounds of verdicts', count(DISTINCT round) FROM verdicts
    UNION ALL SELECT 6, 'failures', count(*) FROM failures
    UNION ALL SELECT 7, 'runs', count(DISTINCT run_id) FROM runs
) ORDER BY place
