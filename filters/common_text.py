"""Drop texts that are said of very many images: they tell none of them from the others."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.recipe import Where
from data_engine.where_sql import surveyed, where_sql

VERSION = 1

# Most texts are said once: by their hashes alone those that can be common are found, and only they are kept whole.
_COMMON = """
    WITH often AS (
        SELECT hash(text) AS number FROM annotations WHERE text IS NOT NULL {where}
        GROUP BY number HAVING count(*) > {most}
    )
    SELECT text, count(DISTINCT image_id) AS images FROM annotations
    WHERE text IS NOT NULL {where} AND hash(text) IN (FROM often)
    GROUP BY text HAVING images > {most} ORDER BY text
"""


class CommonText:
    """Drops texts that more than `most` images of the whole data set have, word for word.

    The data set is looked at once before the first shard, by its `where`; earlier filters make no difference
    to the count. 10 is our own choice. The value is the
    number of images. Raises RecipeError.
    """

    columns = ("text",)

    def __init__(self, most: int = 10) -> None:
        if most < 1:
            raise RecipeError(f"most is {most}", "it must be at least 1")
        self.most = most
        self.common = pa.table({"text": pa.array([], pa.string()), "images": pa.array([], pa.int64())})

    def survey(self, dataset: Dataset, where: Where) -> str:
        """Count every text of the data set; out of core, so it may be larger than memory."""
        self.common = surveyed(dataset, _COMMON.format(where=where_sql(where), most=self.most))
        found = hashlib.sha256()
        for text, images in zip(*(self.common[name].to_pylist() for name in ("text", "images")), strict=True):
            found.update(f"{images} {text}\n".encode())
        return found.hexdigest()

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.is_null(self.values(annotations))

    def values(self, annotations: pa.Table) -> pa.Array:
        at = pc.index_in(annotations["text"], self.common["text"])
        at = pc.if_else(pc.is_valid(annotations["text"]), at, None)
        return pc.cast(self.common["images"].take(at), pa.float32()).combine_chunks()
