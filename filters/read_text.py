"""Drop captions that only read out what is written in the picture (DiHT's text-spotting rule).

Radenovic et al., "Filtering, distillation, and hard negatives" (arXiv 2301.02280, section 3.1): a model that
learns from such pairs learns to read instead of to see.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import RecipeError

VERSION = 1

_SHARES = r"""
    WITH words AS (
        SELECT annotation_id, image_id, kind = 'text' AND granularity <> 'ocr' AS told,
            regexp_extract_all(lower(text), '[\p{L}\p{N}]+') AS words
        FROM said WHERE text IS NOT NULL AND (granularity = 'ocr' OR kind = 'text')
    ), written AS (
        SELECT image_id, list_distinct(flatten(list(words))) AS words FROM words WHERE NOT told GROUP BY image_id
    )
    SELECT w.annotation_id,
        len(list_filter(w.words, lambda x: length(x) >= 3 AND list_contains(o.words, x)))
            / greatest(len(list_filter(w.words, lambda x: length(x) >= 3)), 1) AS share
    FROM words w JOIN written o USING (image_id) WHERE w.told
"""


class ReadText:
    """Drops texts of whose words more than `most` are written in the image, as an OCR has read it.

    Words of one or two letters do not count. The value is the share, 0..1. Its `where` must let the OCR's
    rows (granularity `ocr`) through as well as the texts. Texts of images without writing stay, and
    so does what the OCR said itself. Raises RecipeError.
    """

    columns = ("annotation_id", "image_id", "kind", "granularity", "text")

    def __init__(self, most: float = 0.5) -> None:
        if not 0 <= most < 1:
            raise RecipeError(f"most is {most}", "it must lie in 0..1 (below 1)")
        self.most = most

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.fill_null(pc.less_equal(self.values(annotations), self.most), True)

    def values(self, annotations: pa.Table) -> pa.Array:
        said = annotations.select(["annotation_id", "image_id", "kind", "granularity", "text"])
        with duckdb.connect() as connection:
            connection.register("said", said)
            shares = connection.sql(_SHARES).to_arrow_table()
        at = pc.index_in(annotations["annotation_id"], shares["annotation_id"])
        return pc.cast(shares["share"].take(at), pa.float32()).combine_chunks()
