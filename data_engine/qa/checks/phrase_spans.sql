-- title: Spans that do not spell their phrase
-- by: shard
-- A phrase is the characters of its text from the span's start to its end. Case does not count.
SELECT annotation_id, image_id, source, phrase, span, spelt[:200] AS spelt
FROM (
    SELECT p.annotation_id, p.image_id, p.source, p.text AS phrase, p.span,
        substring(t.text, p.span[1] + 1, p.span[2] - p.span[1]) AS spelt
    FROM annotations p JOIN annotations t ON t.annotation_id = p.parent_id AND t.kind = 'text'
    WHERE p.kind = 'phrase' AND p.span IS NOT NULL AND p.text IS NOT NULL
        AND (p.granularity IS NULL OR p.granularity NOT IN ('change', 'member'))
)
WHERE span[1] < 0 OR length(spelt) <> span[2] - span[1] OR spelt <> phrase AND lower(spelt) <> lower(phrase)
