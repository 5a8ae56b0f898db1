"""Drop boxes that can be no thing in the image: outside of it, without area, slivers, or the whole picture."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_engine.errors import RecipeError
from filters.nms import boxes_of

VERSION = 1

_COLUMNS = ["box", "image_width", "image_height"]


class SaneBox:
    """Keeps boxes that lie in the image and whose size and shape are those of a thing; rows without a box stay.

    - `minimum_area` and `maximum_area`: as a share of the image's area. A box that covers all of it says
      where nothing is.
    - `maximum_aspect`: the longer side divided by the shorter; 20 is our own choice.
    - `margin`: how many pixels it may reach beyond the image: rounding, no more.

    Coordinates that are no numbers and boxes with their corners swapped are dropped whatever the settings.
    Its value is the share of the image's area. Raises RecipeError.
    """

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
        boxed = annotations["box"].is_valid().to_numpy()
        boxes, size = _boxes_and_sizes(annotations.select(_COLUMNS).filter(pa.array(boxed)))
        sides = boxes[:, 2:] - boxes[:, :2]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            area = _shares(boxes, size)
            aspect = sides.max(axis=1, initial=0) / sides.min(axis=1, initial=np.inf)
            # Comparisons with what is no number are false, so that it is dropped.
            sane = (
                (sides > 0).all(axis=1)
                & (boxes[:, :2] >= -self.margin).all(axis=1)
                & (boxes[:, 2:] <= size + self.margin).all(axis=1)
                & (area >= self.minimum_area)
                & (area <= self.maximum_area)
                & (aspect <= self.maximum_aspect)
            )
        keep = np.ones(annotations.num_rows, bool)
        keep[boxed] = sane
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        boxed = annotations["box"].is_valid().to_numpy()
        boxes, size = _boxes_and_sizes(annotations.select(_COLUMNS).filter(pa.array(boxed)))
        found = np.full(annotations.num_rows, np.nan, np.float32)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            found[boxed] = _shares(boxes, size)
        return pa.array(found, from_pandas=True)


def _boxes_and_sizes(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) and the width and height of their images (n, 2)."""
    sizes = [rows[name].to_numpy().astype(np.float64) for name in ("image_width", "image_height")]
    return boxes_of(rows).astype(np.float64), np.stack(sizes, axis=1)


def _shares(boxes: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How much of the image each box covers (n,); what reaches beyond it does not count."""
    inside = np.clip(boxes, 0, np.concatenate([size, size], axis=1))
    share: np.ndarray = (inside[:, 2:] - inside[:, :2]).prod(axis=1) / size.prod(axis=1)
    return share
