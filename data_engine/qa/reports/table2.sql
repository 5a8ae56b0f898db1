-- title: Table 2: annotations, tokens and regions per kind and granularity
-- key: kind, granularity
-- Columns that begin with fld5b are the paper's (arXiv 2311.06242, Table 2). Image annotations: texts; of
-- region-text pairs the images that have some; of triplets the texts that have a phrase with a box. Regions are
-- region-text pairs, or boxes of phrases. Tokens are words and single signs (`token_count`); the paper's are of
-- its model's tokenizer, which splits rare words, so that its averages come out a little higher.
WITH phrases AS (
    SELECT parent_id, count(*) AS regions, sum(token_count(text)) AS tokens
    FROM said WHERE kind = 'phrase' AND box IS NOT NULL
    GROUP BY parent_id
), ours AS (
    SELECT
        'text' AS kind, granularity, count(*) AS image_annotations, avg(token_count(text)) AS avg_tokens,
        NULL::BIGINT AS regions, NULL::DOUBLE AS avg_regions, NULL::DOUBLE AS avg_regional_tokens
    FROM said WHERE kind = 'text'
    GROUP BY granularity
    UNION ALL
    SELECT
        'region-text', granularity, count(DISTINCT image_id), NULL, count(*),
        count(*) / count(DISTINCT image_id), avg(token_count(text))
    FROM said WHERE kind = 'region' AND box IS NOT NULL
    GROUP BY granularity
    UNION ALL
    SELECT
        'triplets', t.granularity, count(*), avg(token_count(t.text)), sum(p.regions)::BIGINT,
        sum(p.regions) / count(*), sum(p.tokens) / sum(p.regions)
    FROM phrases p JOIN texts t ON t.annotation_id = p.parent_id
    GROUP BY t.granularity
), fld5b(kind, granularity, fld5b_image_annotations, fld5b_avg_tokens, fld5b_regions, fld5b_avg_regions,
    fld5b_avg_regional_tokens) AS (VALUES
    ('text', 'brief', 235000000, 7.95, NULL, NULL, NULL),
    ('text', 'detailed', 126000000, 31.65, NULL, NULL, NULL),
    ('text', 'more_detailed', 126000000, 70.53, NULL, NULL, NULL),
    ('region-text', 'phrase', 126000000, NULL, 681000000, 5.42, 1.19),
    ('region-text', 'brief', 126000000, NULL, 681000000, 5.42, 2.55),
    ('triplets', 'brief', 235000000, 7.95, 1007000000, 4.27, 1.93),
    ('triplets', 'detailed', 126000000, 31.65, 1289000000, 10.25, 1.49),
    ('triplets', 'more_detailed', 126000000, 70.53, 1278000000, 10.17, 1.35)
)
SELECT
    kind, granularity,
    coalesce(image_annotations, 0) AS image_annotations, avg_tokens::DOUBLE AS avg_tokens,
    CASE WHEN kind <> 'text' THEN coalesce(regions, 0) END AS regions, avg_regions, avg_regional_tokens,
    fld5b_image_annotations, fld5b_avg_tokens::DOUBLE AS fld5b_avg_tokens, fld5b_regions,
    fld5b_avg_regions::DOUBLE AS fld5b_avg_regions, fld5b_avg_regional_tokens::DOUBLE AS fld5b_avg_regional_tokens
FROM ours FULL JOIN fld5b USING (kind, granularity)
ORDER BY list_position(['text', 'region-text', 'triplets'], kind),
    coalesce(list_position(['phrase', 'brief', 'detailed', 'more_detailed'], granularity), 9), granularity
