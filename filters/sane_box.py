"""Drop boxes that can be no thing in the image: outside of it, without area, slivers, or the whole picture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_engine.errors import RecipeError
from filters.nms import boxes_of

VERSION = 1


class SaneBox:
    """Keeps boxes that lie in the image and whose size and shape are those of a thing; rows without a box stay.

    - `minimum_area` and `maximum_area`: as a share of the image's area. A box that covers all of it says
      where nothing is.
    - `maximum_aspect`: the longer side divided by the shorter; 20 is our own choice.
    - `margin`: how many pixels it may reach beyond the image: rounding, no more.

    Coordinates that are no numbers and boxes with their corners swapped are dropped whatever the settings.
    Its value is the share of the image's area. Raises RecipeError.
    """

    columns = ("box",)
    image_columns = ("width", "height")

    def __init__(
        self,
        minimum_area: float = 0.0,
        maximum_area: float = 1.0,
        maximum_aspect: float = 20.0,
        margin: float = 1.0,
    ) -> None:
        if not 0 <= minimum_area <= maximum_area or maximum_aspect < 1 or margin < 0:
            raise RecipeError(
                "minimum_area must lie in 0..maximum_area, maximum_aspect be at least 1, margin not negative",
                "correct `args`",
            )
        self.minimum_area = minimum_area
        self.maximum_area = maximum_area
        self.maximum_aspect = maximum_aspect
        self.margin = margin

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        boxed, corners, width, height = _boxes_and_sizes(annotations)
        x0, y0, x1, y1 = corners
        keep = np.ones(annotations.num_rows, bool)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            area = _shares(corners, width, height)
            across, down = x1 - x0, y1 - y0
            # Comparisons with what is no number are false, so that it is dropped.
            keep[boxed] = (
                (across > 0)
                & (down > 0)
                & (x0 >= -self.margin)
                & (y0 >= -self.margin)
                & (x1 <= width + self.margin)
                & (y1 <= height + self.margin)
                & (area >= self.minimum_area)
                & (area <= self.maximum_area)
                & (np.maximum(across, down) / np.minimum(across, down) <= self.maximum_aspect)
            )
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        boxed, corners, width, height = _boxes_and_sizes(annotations)
        found = np.full(annotations.num_rows, np.nan, np.float32)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            found[boxed] = _shares(corners, width, height)
        return pa.array(found, from_pandas=True)


def _boxes_and_sizes(annotations: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows that have a box (n,), the corners x0, y0, x1, y1 of those (4, n), the width and height of their
    images (n,)."""
    rows = annotations.select(["box", "image_width", "image_height"])
    boxed = np.arange(rows.num_rows)
    if rows["box"].null_count:
        boxed = np.flatnonzero(rows["box"].is_valid().to_numpy())
        rows = rows.take(pa.array(boxed))
    width, height = (rows[name].to_numpy().astype(np.float64) for name in ("image_width", "image_height"))
    # One corner after the other: arithmetic on rows of four is several times slower.
    return boxed, np.ascontiguousarray(boxes_of(rows).T, np.float64), width, height


def _shares(corners: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """How much of the image each box covers (n,); what reaches beyond it does not count."""
    x0, y0, x1, y1 = corners
    across = np.clip(x1, 0, width) - np.clip(x0, 0, width)
    down = np.clip(y1, 0, height) - np.clip(y0, 0, height)
    share: np.ndarray = across * down / (width * height)
    return share
