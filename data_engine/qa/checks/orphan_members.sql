-- title: Members that name nothing
-- by: shard
-- A member of a fused or merged statement names, as its text, the statement that it stands for.
SELECT l.annotation_id, l.image_id, l.source, l.parent_id, l.text AS member_id
FROM annotations l ANTI JOIN annotations m ON m.annotation_id = l.text
WHERE l.granularity = 'member'
