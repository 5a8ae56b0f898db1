"""Drop images by a measure of the picture itself: blurred, empty, unsafe, ugly."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.recipe import Where
from data_engine.where_sql import quoted, says

VERSION = 1

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


class Measure:
    """Drops whole images whose measure `name` is below `minimum` or above `maximum`.

    Measures are rows of kind `image` whose granularity is the name: `sharpness` and `contrast`
    (specialists.image_measures), `unsafe` (specialists.unsafe), or a specialist's of one's own. The value is
    the row's score, or the number that its text is. An image without the measure stays, with all that
    was said of it. Its `where` must let such rows through (`kind: image`).

    Raises RecipeError, and SpecialistError where no image of the whole data set has the measure.
    """

    columns = ("kind", "granularity", "text", "score")
    whole_image = True

    def __init__(self, name: str, minimum: float | None = None, maximum: float | None = None) -> None:
        if minimum is None and maximum is None:
            raise RecipeError(f"nothing is asked of {name!r}", "give `minimum` or `maximum`, or both")
        self.name = name
        self.minimum = minimum
        self.maximum = maximum

    def survey(self, dataset: Dataset, where: Where) -> str:
        """Look for the measure in the whole data set: one shard may have none."""
        if not says(dataset, where, f"kind = 'image' AND granularity = {quoted(self.name)}"):
            raise SpecialistError(
                f"no image has a measure {self.name!r}",
                "run the specialist that measures it, and let `where` see its rows (kind: image)",
            )
        return ""

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        values = self.values(annotations)
        keep = pa.array([True] * len(values), pa.bool_())
        if self.minimum is not None:
            keep = pc.and_(keep, pc.fill_null(pc.greater_equal(values, self.minimum), True))
        if self.maximum is not None:
            keep = pc.and_(keep, pc.fill_null(pc.less_equal(values, self.maximum), True))
        return keep

    def values(self, annotations: pa.Table) -> pa.Array:
        mine = pc.and_(
            pc.equal(annotations["kind"], "image"), pc.equal(annotations["granularity"], self.name)
        )
        mine = pc.fill_null(mine, False)
        number = pc.fill_null(pc.match_substring_regex(annotations["text"], _NUMBER), False)
        texts = pc.if_else(pc.and_(mine, number), annotations["text"], None)
        told = pc.cast(pc.utf8_trim_whitespace(texts), pa.float32())
        scores = pc.if_else(mine, annotations["score"], None)
        return pc.coalesce(scores, told).combine_chunks()
