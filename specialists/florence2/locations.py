"""Pixels to the 1,000 location tokens of each axis, and back.

Florence-2 writes a coordinate as one of `<loc_0>`..`<loc_999>`, a thousandth of the image's width
or height each. A bin is read back as its centre, in floating point: cut to whole pixels (as the
library's own post-processing does) an 8 px box would lose a fifth of its overlap with the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 1000


def _scale(values: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    width, height = size
    if values.shape[-1] % 2:
        raise ValueError(f"coordinates come in pairs x, y; the last axis has {values.shape[-1]}")
    per_bin: NDArray[np.float64] = np.tile([width / BINS, height / BINS], values.shape[-1] // 2)
    return per_bin


def quantise(points: ArrayLike, size: tuple[int, int]) -> NDArray[np.int64]:
    """Bins of pixel coordinates. The last axis alternates x and y; `size` is (width, height).

    Rounded down and clamped to 0..999: a coordinate on the right or lower edge belongs to the last
    bin, since there is no `<loc_1000>`.
    """
    values = np.asarray(points, dtype=np.float64)
    bins: NDArray[np.int64] = np.clip(np.floor(values / _scale(values, size)), 0, BINS - 1).astype(np.int64)
    return bins


def dequantise(bins: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """Pixel coordinates of the centres of bins, same shape; `size` is (width, height)."""
    values = np.asarray(bins, dtype=np.float64)
    points: NDArray[np.float64] = (values + 0.5) * _scale(values, size)
    return points


def written(box: ArrayLike, size: tuple[int, int]) -> str:
    """A box, or any run of coordinates in pixels, as location tokens."""
    return "".join(f"<loc_{v}>" for v in quantise(box, size).reshape(-1).tolist())
