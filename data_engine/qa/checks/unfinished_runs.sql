-- title: Stages whose last run did not finish
-- Running the same command again does what is left.
SELECT stage, run_id, command, status, units_failed, started FROM (
    SELECT *, row_number() OVER (PARTITION BY stage ORDER BY started DESC) AS place FROM runs
) WHERE place = 1 AND (status <> 'done' OR units_failed > 0)
