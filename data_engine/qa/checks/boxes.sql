-- title: Boxes out of order or outside of their image
-- by: shard
-- x0 < x1 and y0 < y1, all of it in the image; a hundredth of a pixel is forgiven.
SELECT a.annotation_id, a.image_id, a.source, a.kind, a.box, i.width, i.height
FROM annotations a JOIN images i USING (image_id)
WHERE a.box IS NOT NULL AND NOT coalesce(
    a.box[1] >= -0.01 AND a.box[2] >= -0.01 AND a.box[3] <= i.width + 0.01 AND a.box[4] <= i.height + 0.01
    AND a.box[1] < a.box[3] AND a.box[2] < a.box[4], false)
