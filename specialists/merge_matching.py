"""Which boxes of two sides are one: matches, and boxes that stand for several of the other side's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_engine.overlap import Floats, iou

Bools = NDArray[np.bool_]


def matched(a: Floats, b: Floats, alike: Bools, threshold: float) -> list[tuple[int, int]]:
    """Pairs (i, j) of boxes of `a` (n, 4) and `b` (m, 4), none in two pairs; the largest IoU first.

    Only where `alike` (n, m), at an IoU of `threshold` or more. Of equal ones the first of `a`, then of `b`.
    """
    if not len(a) or not len(b):
        return []
    overlap = np.where(alike, iou(a, b), 0.0)
    first, second = np.nonzero(overlap >= threshold)
    order = np.argsort(-overlap[first, second], kind="stable")
    free_a, free_b = np.ones(len(a), bool), np.ones(len(b), bool)
    pairs: list[tuple[int, int]] = []
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            pairs.append((i, j))
    return pairs


def first_of_each(boxes: Floats, alike: Bools, threshold: float) -> Bools:
    """(n,): which of boxes (n, 4) stay where each that stays takes out those after it that are `alike` (n, n) and
    overlap it at an IoU of `threshold` or more."""
    stays = np.ones(len(boxes), bool)
    repeats = alike & (iou(boxes, boxes) >= threshold) if len(boxes) else np.zeros((0, 0), bool)
    for i in np.flatnonzero(np.triu(repeats, 1).any(axis=1)).tolist():
        if stays[i]:
            stays[i + 1 :] &= ~repeats[i, i + 1 :]
    return stays


def covers(whole: Floats, parts: Floats, alike: Bools, threshold: float, inside: float) -> list[list[int]]:
    """For each box of `whole` (n, 4) the boxes of `parts` (m, 4) that together are it; empty for most.

    They are two or more that are `alike` (n, m) and lie in it with a share of `inside` of their area, and the
    box around them overlaps it at an IoU of `threshold` or more: more than any single box of `parts` does.
    """
    found: list[list[int]] = [[] for _ in whole]
    if len(parts) < 2:
        return found
    low = np.maximum(whole[:, None, :2], parts[None, :, :2])
    high = np.minimum(whole[:, None, 2:], parts[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    within = alike & (shared >= inside * (parts[:, 2:] - parts[:, :2]).prod(axis=1))
    single = np.where(alike, iou(whole, parts), 0.0).max(axis=1)
    for i in np.flatnonzero(within.sum(axis=1) >= 2).tolist():
        rows = np.flatnonzero(within[i])
        together = around(parts[rows])
        fit = iou(whole[i : i + 1], together[None])[0, 0]
        if fit >= threshold and fit > single[i]:
            found[i] = rows.tolist()
    return found


def around(boxes: Floats) -> Floats:
    """The box around boxes (n, 4): (4,)."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])


def mean_box(boxes: Floats, strengths: Sequence[float]) -> tuple[float, ...]:
    """The mean of boxes (n, 4), by how much each counts; where none counts, the first one stays."""
    weights = np.asarray(strengths, np.float64)
    if bool((boxes == boxes[0]).all()) or not weights.any():
        return tuple(boxes[0].tolist())
    return tuple((boxes * weights[:, None]).sum(axis=0) / weights.sum())


def iou_of_pairs(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes row by row, (n, 4) each: (n,)."""
    shared = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None).prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
    overlap: Floats = np.divide(shared, union, out=np.zeros(len(a)), where=union > 0)
    return overlap
