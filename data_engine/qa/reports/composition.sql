-- title: What fused and merged statements are made of
-- key: source, kind, made of
-- Statements that name others as their members, by the sources of these: `+` stands between them, `?` for a
-- member that is not there.
WITH links AS (
    SELECT parent_id, text AS member_id FROM statements WHERE granularity = 'member'
), sources AS (
    SELECT links.parent_id, string_agg(DISTINCT coalesce(m.source, '?'), ' + ' ORDER BY coalesce(m.source, '?')) AS made_of,
        count(*) AS members
    FROM links LEFT JOIN annotations m ON m.annotation_id = links.member_id
    GROUP BY links.parent_id
)
SELECT f.source, f.kind, s.made_of AS "made of", count(*) AS statements, avg(s.members) AS avg_members
FROM sources s JOIN annotations f ON f.annotation_id = s.parent_id
GROUP BY ALL ORDER BY f.source, f.kind, statements DESC, "made of"
