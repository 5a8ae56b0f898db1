-- title: Size of boxes
-- key: kind, granularity, bin
-- Counts of boxes in 20 bins of the square root of their share of the image's area: 0.5 is a quarter of the image.
SELECT
    kind, granularity, least(floor(20 * size), 19)::INTEGER AS bin,
    min(bin) / 20 AS low, (min(bin) + 1) / 20 AS high, count(*) AS boxes
FROM (SELECT kind, granularity, sqrt(box_area(box) / (width * height)) AS size FROM said_boxes)
WHERE size >= 0
GROUP BY ALL ORDER BY ALL
