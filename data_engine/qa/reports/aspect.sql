-- title: Aspect of boxes
-- key: kind, granularity, bin
-- Counts of boxes in bins of half a doubling of width to height, from 1:16 to 16:1; `low` and `high` are the
-- logarithms to base 2 of the aspects at a bin's ends. What is longer is in the first and the last bin.
SELECT
    kind, granularity, greatest(-8, least(floor(2 * aspect), 7))::INTEGER AS bin,
    min(bin) / 2 AS low, (min(bin) + 1) / 2 AS high, count(*) AS boxes
FROM (SELECT kind, granularity, log2((box[3] - box[1]) / (box[4] - box[2])) AS aspect FROM said_boxes
    WHERE box[3] > box[1] AND box[4] > box[2])
GROUP BY ALL ORDER BY ALL
