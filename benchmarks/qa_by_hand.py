"""The figures of every report and check as one would write them by hand in DuckDB, for benchmarks/qa.py.

They read the files of the very sources that they are about, know which kinds and granularities those hold, and
join nothing that they need not. `{ds}` is the data set's folder. Where a report has a column of the paper's
figures, they leave it out.
"""

from __future__ import annotations

_TOKENS = (
    r"len(regexp_extract_all({}, '[\p{L}\p{M}\p{N}]+(?:[''’][\p{L}\p{M}\p{N}]+)*|[^\s\p{L}\p{M}\p{N}]'))"
)


def _tokens(column: str) -> str:
    return _TOKENS.replace("{}", column)


_ALL = "read_parquet('{ds}/annotations/*/*.parquet')"
_CAPTIONS = "read_parquet('{ds}/annotations/captioner/*.parquet')"
_ELEMENTS = "read_parquet('{ds}/annotations/elements/*.parquet')"
_REGIONS = "read_parquet('{ds}/annotations/detector/*.parquet')"
_PHRASES = "read_parquet('{ds}/annotations/grounder/*.parquet')"
_IMAGES = "read_parquet('{ds}/images/*.parquet')"
_VERDICTS = "read_parquet('{ds}/verdicts/*/*.parquet')"

_BOXES = f"""
    (SELECT 'region-text' AS kind, 'phrase' AS granularity, box, width, height
        FROM {_REGIONS} JOIN {_IMAGES} USING (image_id) WHERE parent_id IS NULL AND KEPT
    UNION ALL
    SELECT 'triplets', '', box, width, height FROM {_PHRASES} JOIN {_IMAGES} USING (image_id) WHERE KEPT)
"""

REPORTS: dict[str, str] = {
    "absent": f"""
        SELECT (SELECT count(*) FROM {_CAPTIONS} WHERE KEPT), (SELECT count(*) FROM {_REGIONS} WHERE KEPT),
            (SELECT count(*) FROM {_PHRASES} WHERE KEPT), (SELECT count(*) FROM {_ELEMENTS}),
            (SELECT count(*) FROM {_VERDICTS}), (SELECT count(*) FROM {_IMAGES}),
            (SELECT count(*) FROM {_ALL} WHERE mask IS NOT NULL)""",
    "agreement": f"""
        WITH b AS (SELECT image_id, source, text, box FROM {_REGIONS} WHERE parent_id IS NULL
            AND hash(image_id) % (SELECT greatest(1, count(*) // 20000) FROM {_IMAGES}) = 0 AND KEPT)
        SELECT x.source, y.source, count(*), count(*) FILTER (x.text = y.text)
        FROM b x JOIN b y ON x.image_id = y.image_id AND x.source <> y.source GROUP BY ALL""",
    "area": f"""
        SELECT kind, granularity, least(floor(20 * sqrt((box[3] - box[1]) * (box[4] - box[2]) / (width * height))), 19) AS bin,
            count(*) FROM {_BOXES} GROUP BY ALL""",
    "aspect": f"""
        SELECT kind, granularity, greatest(-8, least(floor(2 * log2((box[3] - box[1]) / (box[4] - box[2]))), 7)) AS bin,
            count(*) FROM {_BOXES} GROUP BY ALL""",
    "centres": f"""
        SELECT kind, granularity, least(floor(8 * (box[1] + box[3]) / width), 15) AS x,
            least(floor(8 * (box[2] + box[4]) / height), 15) AS y, count(*) FROM {_BOXES} GROUP BY ALL""",
    "distances": f"""
        SELECT kind, granularity, least(floor(20 * sqrt((((box[1] + box[3]) / width - 1) ** 2
            + ((box[2] + box[4]) / height - 1) ** 2) / 2)), 19) AS bin, count(*) FROM {_BOXES} GROUP BY ALL""",
    "changed": f"SELECT DISTINCT round, source FROM {_VERDICTS}",
    "classes": f"""
        SELECT lower(text) AS class, count(*) AS n, count(DISTINCT image_id), avg(score)
        FROM {_REGIONS} WHERE granularity = 'phrase' AND KEPT GROUP BY class ORDER BY n DESC, class LIMIT 200""",
    "composition": f"SELECT count(*) FROM {_ALL} WHERE granularity = 'member'",
    "failures": "SELECT 1",
    "funnel": f"SELECT round, dropped_by, count(*), avg(value) FROM {_VERDICTS} GROUP BY ALL ORDER BY ALL",
    "kept": f"SELECT round, source, count(*), count(*) FILTER (kept) FROM {_VERDICTS} GROUP BY ALL ORDER BY ALL",
    "merged": f"SELECT count(*) FROM {_ALL} WHERE granularity = 'change'",
    "overview": f"""
        SELECT (SELECT count(*) FROM {_IMAGES}), (SELECT count(*) FROM {_ALL}), (SELECT count(*) FROM {_ALL} WHERE KEPT),
            (SELECT count(DISTINCT source) FROM {_ALL}), (SELECT count(DISTINCT round) FROM {_VERDICTS})""",
    "refinement": "SELECT 1",
    "runs": "SELECT 1",
    "scores": f"""
        SELECT source, kind, granularity, least(floor(20 * score), 19) AS bin, count(*)
        FROM {_ALL} WHERE score IS NOT NULL AND KEPT GROUP BY ALL ORDER BY ALL""",
    "sources": f"""
        SELECT * FROM (SELECT source, kind, granularity, text IS NULL, count(*), avg(score) FROM {_ALL} GROUP BY ALL)
        UNION ALL (SELECT source, kind, granularity, text IS NULL, count(*), NULL FROM {_ALL} WHERE KEPT GROUP BY ALL)""",
    "table1": f"""
        SELECT (SELECT count(*) FROM {_IMAGES}), (SELECT count(*) FROM {_CAPTIONS} WHERE KEPT),
            (SELECT count(*) FROM {_REGIONS} WHERE KEPT), (SELECT count(*) FROM {_PHRASES} WHERE KEPT)""",
    "table2": f"""
        SELECT 'text', granularity, count(*), avg({_tokens("text")}), NULL, NULL FROM {_CAPTIONS} WHERE KEPT GROUP BY ALL
        UNION ALL
        SELECT 'region-text', granularity, count(DISTINCT image_id), NULL, count(*), avg({_tokens("text")})
        FROM {_REGIONS} WHERE KEPT GROUP BY ALL
        UNION ALL
        SELECT 'triplets', t.granularity, count(*), avg({_tokens("t.text")}), sum(p.n), sum(p.tokens) / sum(p.n)
        FROM (SELECT parent_id, count(*) AS n, sum({_tokens("text")}) AS tokens FROM {_PHRASES} WHERE KEPT GROUP BY 1) p
        JOIN {_CAPTIONS} t ON t.annotation_id = p.parent_id GROUP BY ALL""",
    "table3": f"""
        SELECT t.granularity, count(*), avg(json_array_length(e.text, '$.objects')), avg(json_array_length(e.text, '$.attributes')),
            avg(json_array_length(e.text, '$.actions')), avg(json_array_length(e.text, '$.names')),
            avg((e.text->>'$.object_complexity')::INTEGER), avg((e.text->>'$.action_complexity')::INTEGER)
        FROM (SELECT * FROM {_CAPTIONS} WHERE KEPT) t LEFT JOIN {_ELEMENTS} e ON e.parent_id = t.annotation_id GROUP BY ALL""",
}

CHECKS: dict[str, str] = {
    "boxes": f"""
        SELECT annotation_id FROM {_ALL} JOIN {_IMAGES} USING (image_id)
        WHERE box IS NOT NULL AND NOT (box[1] >= 0 AND box[2] >= 0 AND box[3] <= width AND box[4] <= height
            AND box[1] < box[3] AND box[2] < box[4])""",
    "duplicate_ids": f"SELECT annotation_id FROM {_ALL} GROUP BY 1 HAVING count(*) > 1",
    "duplicate_images": f"SELECT image_id FROM {_IMAGES} GROUP BY 1 HAVING count(*) > 1",
    "duplicate_verdicts": f"SELECT annotation_id, round FROM {_VERDICTS} GROUP BY ALL HAVING count(*) > 1",
    "elements": f"""
        SELECT annotation_id FROM {_ELEMENTS} WHERE NOT json_valid(text)
            OR json_type(text, ['$.objects', '$.attributes', '$.actions', '$.names']) <> ['ARRAY', 'ARRAY', 'ARRAY', 'ARRAY']""",
    "images_without_verdict": f"SELECT DISTINCT a.image_id FROM {_ALL} a ANTI JOIN {_VERDICTS} v USING (image_id)",
    "long_texts": f"SELECT annotation_id FROM {_ALL} WHERE length(text) > CASE WHEN kind = 'text' THEN 100000 ELSE 2000 END",
    "masks": f"""
        SELECT annotation_id FROM {_ALL} JOIN {_IMAGES} USING (image_id)
        WHERE mask IS NOT NULL AND (mask.size[1] <> height OR mask.size[2] <> width)""",
    "orphan_members": f"""
        SELECT l.annotation_id FROM {_ALL} l ANTI JOIN {_ALL} m ON m.annotation_id = l.text WHERE l.granularity = 'member'""",
    "orphan_parents": f"""
        SELECT a.annotation_id FROM {_ALL} a ANTI JOIN {_ALL} p ON p.annotation_id = a.parent_id AND p.image_id = a.image_id
        WHERE a.parent_id IS NOT NULL""",
    "orphan_verdicts": f"SELECT v.annotation_id FROM {_VERDICTS} v ANTI JOIN {_ALL} a USING (annotation_id)",
    "phrase_spans": f"""
        SELECT p.annotation_id FROM {_PHRASES} p JOIN {_CAPTIONS} t ON t.annotation_id = p.parent_id
        WHERE lower(substring(t.text, p.span[1] + 1, p.span[2] - p.span[1])) <> lower(p.text)""",
    "quads": f"SELECT annotation_id FROM {_ALL} JOIN {_IMAGES} USING (image_id) WHERE quad IS NOT NULL AND list_min(quad) < 0",
    "scores": f"SELECT annotation_id FROM {_ALL} WHERE score < 0 OR score > 1",
    "unknown_images": f"SELECT a.image_id, count(*) FROM {_ALL} a ANTI JOIN {_IMAGES} i USING (image_id) GROUP BY 1",
    "unknown_kinds": f"""
        SELECT annotation_id FROM {_ALL} WHERE kind NOT IN ('text', 'region', 'phrase', 'image')
            OR annotation_id IS NULL OR image_id IS NULL OR source IS NULL""",
    "verdict_counts": f"""
        SELECT * FROM (SELECT image_id, source, count(*) AS n FROM {_ALL} GROUP BY ALL)
        FULL JOIN (SELECT image_id, source, count(*) AS m FROM {_VERDICTS} GROUP BY ALL) USING (image_id, source)
        WHERE n IS DISTINCT FROM m""",
    "verdict_reasons": f"SELECT annotation_id FROM {_VERDICTS} WHERE kept = (dropped_by IS NOT NULL)",
}
"""Checks of files and runs are left out: they ask Parquet footers and single rows."""

KEPT = "annotation_id NOT IN (SELECT annotation_id FROM read_parquet('{ds}/verdicts/*/*.parquet') WHERE NOT kept)"
"""What stands for KEPT in a report: dropped statements do not count."""
