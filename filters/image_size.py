"""Drop images that are too small or too long to learn from."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import RecipeError

VERSION = 1


class ImageSize:
    """Drops whole images by their size in pixels, as shown.

    - `minimum_side`: of the shorter side; `maximum_aspect`: the longer side divided by the shorter. 200 and 3
      are DataComp's basic filter.
    - `minimum_pixels`: width times height.

    The value is the shorter side. Raises RecipeError.
    """

    columns = ()

    image_columns = ("width", "height")
    whole_image = True

    def __init__(self, minimum_side: int = 200, maximum_aspect: float = 3.0, minimum_pixels: int = 0) -> None:
        if minimum_side < 0 or minimum_pixels < 0 or maximum_aspect < 1:
            raise RecipeError("sizes cannot be negative, and maximum_aspect is at least 1", "correct `args`")
        self.minimum_side = minimum_side
        self.maximum_aspect = maximum_aspect
        self.minimum_pixels = minimum_pixels

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        width, height = (pc.cast(annotations[f"image_{name}"], pa.float64()) for name in ("width", "height"))
        shorter, longer = pc.min_element_wise(width, height), pc.max_element_wise(width, height)
        keep = pc.and_(
            pc.and_(
                pc.greater_equal(shorter, self.minimum_side),
                pc.less_equal(longer, pc.multiply(shorter, self.maximum_aspect)),
            ),
            pc.greater_equal(pc.multiply(width, height), self.minimum_pixels),
        )
        return pc.fill_null(keep, True).combine_chunks()

    def values(self, annotations: pa.Table) -> pa.Array:
        shorter = pc.min_element_wise(annotations["image_width"], annotations["image_height"])
        return pc.cast(shorter, pa.float32()).combine_chunks()
