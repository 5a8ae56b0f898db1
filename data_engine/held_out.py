"""Which images a training never sees: a share of them, by their ids, the same ones on every machine."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_engine.errors import RecipeError

_FIRST, _LAST = 8, 21
"""The digits of an image_id that decide. Thirteen of them fit a float exactly; they do not begin with the
first digit, by which other tools like to draw their samples."""


def is_held_out(image_ids: pa.Array | pa.ChunkedArray, share: float) -> NDArray[np.bool_]:
    """One bool per image_id: whether the image belongs to the `share` that is left out.

    An id is a digest of the image's bytes, so its digits are as good as drawn: an image stays on its side
    whatever else is in the data set, and a larger share only adds images. Raises RecipeError for a share
    outside of 0 (none) to below 1.
    """
    if not 0 <= share < 1:
        raise RecipeError(f"the share {share} cannot be held out", "give 0 or more, and less than 1")
    ids = image_ids.combine_chunks() if isinstance(image_ids, pa.ChunkedArray) else image_ids
    digits = pc.utf8_slice_codeunits(ids, _FIRST, _LAST).to_pylist()
    values = np.fromiter((int(digit, 16) for digit in digits), np.float64, len(digits))
    return values / 16.0 ** (_LAST - _FIRST) < share
