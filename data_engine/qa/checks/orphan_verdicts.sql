-- title: Verdicts on statements that are not there
-- by: shard
-- They stand there when annotations were made anew and not filtered since.
SELECT v.annotation_id, v.image_id, v.source, v.round, v.kept
FROM verdicts v ANTI JOIN annotations a ON a.annotation_id = v.annotation_id
