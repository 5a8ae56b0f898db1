-- Boxes of `said`, each with the size of its image; what is no box (corners out of order) is left out. A further
-- text of a region, which repeats its box, is no further box.
SELECT
    CASE s.kind WHEN 'region' THEN 'region-text' ELSE 'triplets' END AS kind,
    coalesce(s.granularity, '') AS granularity, s.box, i.width, i.height
FROM said s JOIN images i USING (image_id)
WHERE s.kind IN ('region', 'phrase') AND (s.kind = 'phrase' OR s.parent_id IS NULL)
    AND s.box[3] > s.box[1] AND s.box[4] > s.box[2]
