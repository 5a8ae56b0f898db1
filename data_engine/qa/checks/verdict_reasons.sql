-- title: Verdicts whose reason does not fit
-- What is dropped has the filter that dropped it, and what is kept has none.
SELECT annotation_id, image_id, source, round, kept, dropped_by
FROM verdicts
WHERE kept IS NULL OR kept = (dropped_by IS NOT NULL)
