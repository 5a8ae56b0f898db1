-- title: Runs
-- key: run, stage
-- Throughput, failures and cost of every stage of every run, the latest first. `seconds` are the whole run's.
SELECT
    run_id AS run, stage, command, recipe, status, started, seconds, units_done, units_skipped, units_failed,
    images, images / nullif(seconds, 0) AS images_per_second, annotations, failures, cpu_hours, gpu_hours, version
FROM runs
ORDER BY started DESC, run, stage
