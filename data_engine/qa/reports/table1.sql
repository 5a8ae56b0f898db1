-- title: Table 1: the data set beside those of other models
-- key: data set
-- Annotations are counted as the paper counts its own: texts, region-text pairs and boxes of triplets. The rows
-- of its Table 2 add up to its 5.42 billion that way. Level: are whole images described, regions, or both?
-- Coarse are class names and categories, fine are descriptions.
WITH counts AS (
    SELECT
        count(*) FILTER (kind = 'text') AS texts,
        count(*) FILTER (kind <> 'text' AND box IS NOT NULL) AS boxes,
        count(*) FILTER (kind = 'region' AND text IS NOT NULL AND granularity IN ('phrase', 'ocr')
            OR kind = 'text' AND granularity = 'class') AS coarse,
        count(*) FILTER (kind = 'phrase' OR kind = 'region' AND granularity IN ('brief', 'noun_chunk')
            OR kind = 'text' AND granularity <> 'class') AS fine,
        count(*) FILTER (kind = 'text' OR box IS NOT NULL AND text IS NOT NULL) AS annotations
    FROM said
), this AS (
    SELECT
        'this data set' AS "data set", '' AS model, (SELECT count(*) FROM images) AS images, annotations,
        CASE WHEN texts > 0 AND boxes > 0 THEN 'image and region' WHEN texts > 0 THEN 'image'
            WHEN boxes > 0 THEN 'region' ELSE 'none' END AS level,
        CASE WHEN coarse > 0 AND fine > 0 THEN 'coarse to fine' WHEN fine > 0 THEN 'fine'
            WHEN coarse > 0 THEN 'coarse' ELSE 'none' END AS semantics
    FROM counts
), published("data set", model, images, annotations, level, semantics) AS (VALUES
    ('FLD-5B', 'Florence-2', 126000000, 5000000000, 'image and region', 'coarse to fine'),
    ('GrIT', 'Kosmos-2', 91000000, 137000000, 'image and region', 'fine'),
    ('SA-1B', 'SAM', 11000000, 1000000000, 'region', 'none'),
    ('WIT', 'CLIP', 400000000, 400000000, 'image', 'coarse'),
    ('JFT300M', 'ViT', 300000000, 300000000, 'image', 'coarse'),
    ('M3W', 'Flamingo', 185000000, 43300000, 'multi-image', 'fine')
)
SELECT * FROM this UNION ALL SELECT * FROM published
