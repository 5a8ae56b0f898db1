-- title: Agreement of sources on boxes
-- key: source, other
-- Of each source's regions of granularity `phrase`, how many have one by another source at IoU 0.5 or more in the
-- same image (`matched`), and how many of those have its text (`same_class`; case does not count). Only images
-- that both sources found something in. Of more than 20,000 images a part is looked at, spread by image id.
WITH boxes AS MATERIALIZED (
    SELECT annotation_id, image_id, source, lower(text) AS class, box
    FROM said
    WHERE kind = 'region' AND granularity = 'phrase' AND parent_id IS NULL
        AND hash(image_id) % (SELECT greatest(1, count(*) // 20000) FROM images) = 0
), pairs AS (
    SELECT a.source, b.source AS other, a.annotation_id, max(box_iou(a.box, b.box)) AS iou,
        bool_or(a.class = b.class AND box_iou(a.box, b.box) >= 0.5) AS same_class
    FROM boxes a JOIN boxes b ON b.image_id = a.image_id AND b.source <> a.source
    GROUP BY ALL
)
SELECT
    source, other, count(*) AS boxes, count(*) FILTER (iou >= 0.5) AS matched,
    count(*) FILTER (same_class) AS same_class, avg(iou) FILTER (iou >= 0.5) AS avg_iou
FROM pairs
GROUP BY ALL ORDER BY ALL
