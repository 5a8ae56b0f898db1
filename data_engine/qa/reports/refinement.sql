-- title: Rounds of refinement
-- key: round, subject, measure
-- What each round came to on its held-out images, by measure: of the statements it began with, of those it merged, of
-- its student. `change` is against what the round began with.
SELECT round, subject, measure, value, low, high, change, change_low, change_high, decides, accepted, reason, images
FROM rounds
ORDER BY round, NOT decides, measure, subject
