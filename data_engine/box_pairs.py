"""Pairs of overlapping boxes within groups (images, or classes of images), many groups at once.

A loop over images would take most of the time of a rule on boxes. Here rows are sorted by group, and one
step compares each row with the one `d` places after it, in all groups: as many steps as the largest group
has boxes, each over fewer rows than the one before.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]

_LARGEST = 1 << 62


def groups_of(*columns: pa.ChunkedArray | pa.Array) -> Ints:
    """One number for each row, equal where the rows' values in all the columns are (null is a value)."""
    groups = np.zeros(len(columns[0]), np.int64)
    most = 1
    for column in columns:
        coded = _coded(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
        values = int(coded.max(initial=0)) + 1
        if most * values >= _LARGEST:
            groups = np.unique(groups, return_inverse=True)[1].reshape(-1)
            most = int(groups.max(initial=0)) + 1
        groups = groups * values + coded
        most *= values
    return groups


def _coded(column: pa.Array) -> Ints:
    """A number for each different value. The rows of an image stand together, so that few values are looked up."""
    changes = pc.fill_null(pc.not_equal(column[1:], column[:-1]), True)
    starts = np.flatnonzero(np.append(True, changes.to_numpy(zero_copy_only=False))[: len(column)])
    few = 2 * len(starts) < len(column)
    different = column.take(pa.array(starts)) if few else column
    coded = pc.dictionary_encode(different, null_encoding="encode").indices
    numbers: Ints = coded.to_numpy(zero_copy_only=False).astype(np.int64)
    return np.repeat(numbers, np.diff(starts, append=len(column))) if few else numbers


def best_first(groups: Ints, scores: Singles) -> Ints:
    """The rows (n,) group by group, in each those of the highest score first; equal ones in their order.

    No score may be NaN.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0
    # As whole numbers, floats lie in their own order; negative ones backwards.
    ranks = np.where(bits < 0, bits ^ np.int32(0x7FFF_FFFF), bits).astype(np.int64)
    if int(groups.max(initial=0)) >= 1 << 30:
        groups = np.unique(groups, return_inverse=True)[1].reshape(-1)
    return np.argsort((groups << 32) - ranks, kind="stable")


def overlapping(boxes: Singles, groups: Ints, order: Ints, threshold: float) -> tuple[Ints, Ints]:
    """All pairs of boxes of one group with an IoU above `threshold`: rows (first, second), `first` the one
    that comes earlier in `order`.

    `boxes` is (n, 4) and `groups` (n,); `order` (n,) is a permutation. The arithmetic is single precision,
    as torchvision's `nms` has it, so that the same pairs pass. A box without area overlaps nothing.
    """
    order = order[np.argsort(groups[order], kind="stable")]
    found = list(_pairs(boxes[order], groups[order], threshold))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    return order[first], order[second]


def _pairs(boxes: Singles, groups: Ints, threshold: float) -> Iterator[tuple[Ints, Ints]]:
    x0, y0, x1, y1 = (np.ascontiguousarray(boxes[:, i]) for i in range(4))
    areas = (x1 - x0) * (y1 - y0)
    rows = np.arange(len(boxes))
    # How many of its group come after each row.
    ends = np.flatnonzero(np.append(groups[1:] != groups[:-1], True)) if len(groups) else rows
    after = np.repeat(ends, np.diff(ends, prepend=-1)) - rows
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for distance in range(1, int(after.max(initial=0)) + 1):
            rows = rows[after[rows] >= distance]
            other = rows + distance
            width = np.minimum(x1[rows], x1[other]) - np.maximum(x0[rows], x0[other])
            height = np.minimum(y1[rows], y1[other]) - np.maximum(y0[rows], y0[other])
            near = np.flatnonzero((width > 0) & (height > 0))
            i, j = rows[near], other[near]
            shared = width[near] * height[near]
            overlap = shared / (areas[i] + areas[j] - shared)
            passed = overlap.astype(np.float64) > threshold
            if passed.any():
                yield i[passed], j[passed]
