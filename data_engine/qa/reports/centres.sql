-- title: Centres of boxes
-- key: kind, granularity, x, y
-- Counts of boxes whose centre lies in each of 16 x 16 cells of the image; cell 0, 0 is at the top left.
SELECT
    kind, granularity,
    greatest(0, least(floor(8 * (box[1] + box[3]) / width), 15))::INTEGER AS x,
    greatest(0, least(floor(8 * (box[2] + box[4]) / height), 15))::INTEGER AS y,
    count(*) AS boxes
FROM said_boxes
GROUP BY ALL ORDER BY ALL
