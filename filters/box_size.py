"""Drop boxes too small to show anything."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

VERSION = 1


class MinimumSide:
    """Keeps rows whose box has a shorter side of at least `pixels`; rows without a box are kept."""

    columns = ("box",)

    def __init__(self, pixels: float) -> None:
        self.pixels = pixels

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.fill_null(pc.greater_equal(self.values(annotations), self.pixels), True)

    def values(self, annotations: pa.Table) -> pa.Array:
        boxes = annotations["box"].combine_chunks()
        x0, y0, x1, y1 = (pc.list_element(boxes, i) for i in range(4))
        return pc.min_element_wise(pc.subtract(x1, x0), pc.subtract(y1, y0), skip_nulls=False)
