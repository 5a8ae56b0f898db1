"""Drop statements that their own source is not sure of."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

VERSION = 1


class MinimumScore:
    """Keeps rows with `score >= minimum`; a row without a score (people do not score) is kept."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.fill_null(pc.greater_equal(annotations["score"], self.minimum), True).combine_chunks()

    def values(self, annotations: pa.Table) -> pa.Array:
        return annotations["score"].combine_chunks()
