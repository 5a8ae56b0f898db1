-- title: Spans that do not spell their phrase
-- by: shard
-- A phrase is the characters of its text from the span's start to its end. Case does not count.
SELECT p.annotation_id, p.image_id, p.source, p.text AS phrase, p.span,
    substring(t.text, p.span[1] + 1, p.span[2] - p.span[1])[:200] AS spelt
FROM annotations p JOIN annotations t ON t.annotation_id = p.parent_id AND t.kind = 'text'
WHERE p.kind = 'phrase' AND p.span IS NOT NULL AND p.text IS NOT NULL
    AND (p.granularity IS NULL OR p.granularity NOT IN ('change', 'member'))
    AND (p.span[1] < 0 OR p.span[2] < p.span[1] OR p.span[2] > length(t.text)
        OR lower(substring(t.text, p.span[1] + 1, p.span[2] - p.span[1])) <> lower(p.text))
