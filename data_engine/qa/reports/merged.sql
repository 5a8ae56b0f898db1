-- title: Why merged statements are there
-- key: source, change, kind
-- Statements that a merge (or the noise model) made or changed, by what it did to them (the view `changes`).
SELECT c.source, c.text AS change, s.kind, count(*) AS statements
FROM annotations c JOIN annotations s ON s.annotation_id = c.parent_id
WHERE c.granularity = 'change'
GROUP BY ALL ORDER BY ALL
