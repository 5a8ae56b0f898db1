-- title: Regions by class
-- key: class
-- The 200 most frequent texts of regions of granularity `phrase` (case does not count), with the images they are
-- in and their mean score.
SELECT
    lower(text) AS class, count(*) AS regions, count(DISTINCT image_id) AS images, avg(score) AS avg_score
FROM said WHERE kind = 'region' AND granularity = 'phrase' AND box IS NOT NULL
GROUP BY class ORDER BY regions DESC, class LIMIT 200
