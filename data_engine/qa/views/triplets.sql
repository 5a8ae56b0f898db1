-- Text-phrase-region triplets: one row per phrase, box and mask (several mask sources give several rows).
SELECT
    p.annotation_id, p.image_id,
    t.granularity, t.text, t.source AS text_source, t.annotation_id AS text_id,
    p.text AS phrase, p.span, p.box, m.mask, p.score, p.source, p.round
FROM annotations p
JOIN texts t ON t.annotation_id = p.parent_id
LEFT JOIN masks m ON m.parent_id = p.annotation_id
WHERE p.kind = 'phrase' AND p.box IS NOT NULL AND p.mask IS NULL
