-- Why each statement of a merged set is there, or what noise did to a statement: a row per change, with the
-- statements that it was made from. Of a statement that was `doubted`, the original's own row.
WITH members AS (
    SELECT
        l.parent_id,
        list({'annotation_id': l.text, 'source': m.source, 'text': m.text, 'box': m.box, 'score': m.score}
            ORDER BY m.source, l.text) AS members
    FROM annotations l
    LEFT JOIN annotations m ON m.annotation_id = l.text
    WHERE l.kind = 'region' AND l.granularity = 'member'
    GROUP BY l.parent_id
)
SELECT
    s.annotation_id, c.image_id, c.text AS change, s.kind, s.granularity, s.text, s.box, s.mask IS NOT NULL AS is_mask,
    s.score, s.source AS statement_source, members.members, c.source, c.round
FROM annotations c
JOIN annotations s ON s.annotation_id = c.parent_id
LEFT JOIN members ON members.parent_id = s.annotation_id
WHERE c.granularity = 'change'
