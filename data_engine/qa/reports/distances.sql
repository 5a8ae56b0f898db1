-- title: Distance of boxes from the image's centre
-- key: kind, granularity, bin
-- Counts of boxes in 20 bins of the distance of their centre from the image's; 1 is a corner.
SELECT
    kind, granularity, least(floor(20 * distance), 19)::INTEGER AS bin,
    min(bin) / 20 AS low, (min(bin) + 1) / 20 AS high, count(*) AS boxes
FROM (
    SELECT kind, granularity,
        sqrt((((box[1] + box[3]) / width - 1) ** 2 + ((box[2] + box[4]) / height - 1) ** 2) / 2) AS distance
    FROM said_boxes
)
GROUP BY ALL ORDER BY ALL
