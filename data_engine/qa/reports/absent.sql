-- title: What is not there
-- key: what
-- Parts of an FLD-5B that this data set has none of, and which of the specialists make them.
WITH there AS (
    SELECT
        count(*) AS any_said,
        count(*) FILTER (kind = 'text' AND granularity = 'brief') AS brief,
        count(*) FILTER (kind = 'text' AND granularity = 'detailed') AS detailed,
        count(*) FILTER (kind = 'text' AND granularity = 'more_detailed') AS more_detailed,
        count(*) FILTER (kind = 'region' AND granularity = 'phrase') AS classes,
        count(*) FILTER (kind = 'region' AND granularity = 'brief') AS descriptions,
        count(*) FILTER (kind = 'phrase') AS phrases,
        (SELECT count(*) FROM annotations WHERE mask IS NOT NULL AND kind = 'phrase') AS masks,
        (SELECT count(*) FROM annotations WHERE granularity = 'elements') AS elements,
        (SELECT count(*) FROM verdicts) AS verdicts,
        (SELECT count(*) FROM images) AS images
    FROM said
)
SELECT what, means FROM there, (VALUES
    (1, 'images', 'their shards are missing or cannot be read', images),
    (2, 'statements that count', 'no specialist has run, or the filters dropped everything', any_said),
    (3, 'brief texts', 'made by: captioner, florence2, or people''s labels', brief),
    (4, 'detailed texts', 'made by: endpoint, local_texts, florence2', detailed),
    (5, 'more detailed texts', 'made by: endpoint, local_texts, florence2', more_detailed),
    (6, 'regions with a class', 'made by: a detector, or people''s labels', classes),
    (7, 'regions with a description', 'made by: region_captions, florence2', descriptions),
    (8, 'phrases with a box', 'made by: grounding_dino, owl_grounding, florence2', phrases),
    (9, 'masks of phrases', 'made by: sam', masks),
    (10, 'texts taken apart (Table 3)', 'made by: text_elements, with the texts under `needs`', elements),
    (11, 'verdicts', 'made by: fde filter; until then all statements count', verdicts)
) AS parts(place, what, means, n)
WHERE n = 0
ORDER BY place
