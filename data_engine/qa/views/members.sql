-- What each fused region was made from, a row per member. A member that is no longer there has nulls.
SELECT
    f.annotation_id, f.image_id, f.text, f.box, f.score, f.source,
    l.text AS member_id, m.source AS member_source, m.text AS member_text, m.box AS member_box,
    m.score AS member_score, f.round
FROM annotations l
JOIN annotations f ON f.annotation_id = l.parent_id
LEFT JOIN annotations m ON m.annotation_id = l.text
WHERE l.kind = 'region' AND l.granularity = 'member'
