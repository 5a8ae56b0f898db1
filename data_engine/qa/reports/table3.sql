-- title: Table 3: what texts are made of
-- key: granularity
-- Columns that begin with fld5b are the paper's (arXiv 2311.06242, Table 3). Means over the texts that were taken
-- apart by `specialists.text_elements:TextElements`; where `taken_apart` is 0, put it into the recipe, with the
-- specialists that write texts under `needs`. Complexity is the degree in the dependency tree of the text's most
-- related object (action).
WITH taken AS (
    SELECT text_id, any_value(objects) AS objects, any_value(attributes) AS attributes,
        any_value(actions) AS actions, any_value(names) AS names,
        any_value(object_complexity) AS object_complexity, any_value(action_complexity) AS action_complexity
    FROM elements GROUP BY text_id
), ours AS (
    SELECT
        granularity, count(*) AS texts, count(text_id) AS taken_apart, avg(objects) AS objects,
        avg(attributes) AS attributes, avg(actions) AS actions, avg(names) AS proper_nouns,
        avg(object_complexity) AS object_complexity, avg(action_complexity) AS action_complexity
    FROM said LEFT JOIN taken ON text_id = annotation_id
    WHERE kind = 'text' AND granularity IN ('brief', 'detailed', 'more_detailed')
    GROUP BY granularity
), fld5b(granularity, fld5b_objects, fld5b_attributes, fld5b_actions, fld5b_proper_nouns,
    fld5b_object_complexity, fld5b_action_complexity) AS (VALUES
    ('brief', 3.23::DOUBLE, 2.80::DOUBLE, 0.58::DOUBLE, 1.10::DOUBLE, 2.80::DOUBLE, 1.14::DOUBLE),
    ('detailed', 13.31, 7.27, 4.21, 2.40, 4.00, 3.63),
    ('more_detailed', 28.06, 16.25, 8.76, 2.41, 4.02, 4.38)
)
SELECT
    granularity, coalesce(texts, 0) AS texts, coalesce(taken_apart, 0) AS taken_apart,
    ours.* EXCLUDE (granularity, texts, taken_apart), fld5b.* EXCLUDE (granularity)
FROM fld5b LEFT JOIN ours USING (granularity)
ORDER BY list_position(['brief', 'detailed', 'more_detailed'], granularity)
