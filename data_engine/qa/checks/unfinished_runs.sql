-- title: Stages whose last run did not finish
-- Shards are left that the run neither did nor found done, and that no other run has made since. A stage without any
-- file that the last run of the same command no longer names was given up, and is passed over. Running the same
-- command again does what is left.
WITH last AS (
    SELECT *, row_number() OVER (PARTITION BY stage ORDER BY started DESC) AS place,
        max(started) OVER (PARTITION BY command) AS latest
    FROM runs
), files AS (
    SELECT CASE WHEN tables = 'annotations' THEN stage WHEN stage = '0' THEN 'filter' ELSE 'filter-' || stage END AS stage,
        fingerprint
    FROM shards WHERE tables IN ('annotations', 'verdicts') AND state <> 'missing'
)
SELECT stage, run_id, command, status, units_failed, started FROM last
WHERE place = 1 AND (status <> 'done' OR units_failed > 0)
    AND units_done + units_skipped < (SELECT shards FROM dataset)
    AND (SELECT count(*) FROM files WHERE files.stage = last.stage AND files.fingerprint = last.fingerprint)
        < (SELECT shards FROM dataset)
    AND (started = latest OR stage IN (SELECT stage FROM files))
