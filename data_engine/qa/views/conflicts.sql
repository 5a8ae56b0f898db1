-- Where a person's box and a model's overlap (IoU 0.5 and more) and their class names differ. Left out is a
-- model's box that some person's box there of the same name explains: a rider's on a person's bicycle.
WITH pairs AS (
    SELECT
        p.image_id, p.annotation_id AS human_id, p.text AS human_text, p.box AS human_box,
        m.annotation_id, m.text, m.box, m.score, m.source, box_iou(p.box, m.box) AS iou, m.round,
        lower(trim(p.text)) = lower(trim(m.text)) AS same
    FROM regions p
    JOIN regions m ON m.image_id = p.image_id AND m.source NOT IN ('human', 'truth')
    WHERE p.source = 'human'
        AND p.granularity = 'phrase' AND p.parent_id IS NULL AND p.text IS NOT NULL
        AND m.granularity = 'phrase' AND m.parent_id IS NULL AND m.text IS NOT NULL
        AND box_iou(p.box, m.box) >= 0.5
)
SELECT * EXCLUDE (same)
FROM pairs
QUALIFY NOT bool_or(same) OVER (PARTITION BY annotation_id)
