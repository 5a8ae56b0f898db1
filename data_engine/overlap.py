"""How much boxes overlap: intersection over union, of many at once and in bounded memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PAIRS_AT_ONCE = 1 << 20


def boxes_of(column: pa.ChunkedArray) -> Floats:
    """A column of boxes, none of them null, as (n, 4): x0, y0, x1, y1."""
    values: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float64).reshape(-1, 4)


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of every box of `a` (n, 4) with every one of `b` (m, 4): (n, m), in 0..1."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None] + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
    overlap: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def paired_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes row by row, (n, 4) each: (n,), 0 where neither has an area."""
    shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
    overlap: Floats = np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)
    return overlap


def best_overlap(a: Floats, b: Floats) -> Floats:
    """The largest IoU of each box of `a` (n, 4) with any of `b` (m, 4): (n,), 0 where `b` is empty."""
    best = np.zeros(len(a))
    if not len(b):
        return best
    step = max(1, _PAIRS_AT_ONCE // len(b))
    for start in range(0, len(a), step):
        best[start : start + step] = iou(a[start : start + step], b).max(axis=1)
    return best
