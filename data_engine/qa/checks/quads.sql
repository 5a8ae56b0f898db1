-- title: Quads outside of their image
-- by: shard
SELECT a.annotation_id, a.image_id, a.source, a.quad, i.width, i.height
FROM annotations a JOIN images i USING (image_id)
WHERE a.quad IS NOT NULL AND NOT coalesce(
    list_min(a.quad) >= -0.01
    AND greatest(a.quad[1], a.quad[3], a.quad[5], a.quad[7]) <= i.width + 0.01
    AND greatest(a.quad[2], a.quad[4], a.quad[6], a.quad[8]) <= i.height + 0.01, false)
