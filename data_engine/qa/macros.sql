-- Functions for any query. A box is x0, y0, x1, y1.
CREATE MACRO box_area(a) AS (a[3]::DOUBLE - a[1]) * (a[4]::DOUBLE - a[2]);
-- The area that two boxes share.
CREATE MACRO box_shared(a, b) AS
    greatest(least(a[3], b[3])::DOUBLE - greatest(a[1], b[1]), 0)
    * greatest(least(a[4], b[4])::DOUBLE - greatest(a[2], b[2]), 0);
-- Intersection over union, in 0..1.
CREATE MACRO box_iou(a, b) AS box_shared(a, b) / (box_area(a) + box_area(b) - box_shared(a, b));
-- Tokens of a text: words (letters and digits, with apostrophes inside) and single signs.
CREATE MACRO token_count(t) AS
    len(regexp_extract_all(t, '[\p{L}\p{M}\p{N}]+(?:[''’][\p{L}\p{M}\p{N}]+)*|[^\s\p{L}\p{M}\p{N}]'));
-- What a statement consists of: a mask, a text (with its box, if any), a box alone, or a score alone.
CREATE MACRO statement_form(t, b, m) AS
    CASE WHEN m IS NOT NULL THEN 'mask' WHEN t IS NOT NULL THEN 'text' WHEN b IS NOT NULL THEN 'box' ELSE 'score' END;
