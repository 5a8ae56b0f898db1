-- title: Failures
-- key: stage, reason
-- Images that a stage could not use, by reason (docs/failures.md), with one of the messages.
SELECT
    stage, reason, count(*) AS failures, count(DISTINCT coalesce(image_id, key)) AS images,
    min(message) AS example
FROM failures
GROUP BY ALL ORDER BY ALL
