"""Soft non-maximum suppression: overlapping boxes lose score instead of falling at once.

Bodla et al., "Soft-NMS: improving object detection with one line of code" (arXiv 1704.04503): in crowds two
things may truly overlap, and the weaker box stays if it was sure enough.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from data_engine.box_pairs import Ints, Singles, groups_of
from data_engine.errors import RecipeError
from data_engine.quality.coco import are_detections
from filters.nms import DETECTIONS, boxes_of, sure_scores

VERSION = 1

_CELLS_AT_ONCE = 1 << 20


class SoftNms:
    """Drops detections whose score, lowered for every better box that they overlap, is below `minimum`.

    A box's score is multiplied by exp(-IoU^2 / `sigma`) for each better one of its image and class, the best
    first; 0.5 is the paper's `sigma`. `minimum` is the score asked for in the end, as a score filter
    would ask. Its value is the lowered score; the stored score stays as it was said. Without `by_class`,
    boxes of all classes lower each other. Raises RecipeError.
    """

    columns = DETECTIONS

    def __init__(self, minimum: float, sigma: float = 0.5, by_class: bool = True) -> None:
        if not 0 <= minimum <= 1 or not sigma > 0:
            raise RecipeError("minimum must lie in 0..1 and sigma be above 0", "correct `args`")
        self.minimum = minimum
        self.sigma = sigma
        self.by_class = by_class

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        lowered = self._lowered(annotations)
        return pa.array(np.isnan(lowered) | (lowered >= self.minimum))

    def values(self, annotations: pa.Table) -> pa.Array:
        return pa.array(self._lowered(annotations), pa.float32(), from_pandas=True)

    def _lowered(self, annotations: pa.Table) -> Singles:
        """The lowered score of each detection, and no number for other rows."""
        wanted = are_detections(annotations)
        rows = np.flatnonzero(wanted.to_numpy())
        found = annotations.select(["image_id", "text", "box", "score"]).filter(wanted)
        columns = [found["image_id"], found["text"]] if self.by_class else [found["image_id"]]
        lowered = np.full(annotations.num_rows, np.nan, np.float32)
        lowered[rows] = soften(boxes_of(found), sure_scores(found), groups_of(*columns), self.sigma)
        return lowered


def soften(boxes: Singles, scores: Singles, groups: Ints, sigma: float) -> Singles:
    """The scores (n,) of boxes (n, 4) after Gaussian soft suppression within groups."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    lowered = scores.copy()
    for batch in _alike(sizes):
        width = int(sizes[batch].max())
        # A row per group; what stands behind its end repeats its first box and is never chosen.
        at = starts[batch][:, None] + np.minimum(np.arange(width), sizes[batch][:, None] - 1)
        members = order[at]
        there = np.arange(width) < sizes[batch][:, None]
        lowered[members[there]] = _soften(boxes[members], scores[members], there, sigma)[there]
    return lowered


def _alike(sizes: Ints) -> Iterator[Ints]:
    """Numbers of the groups of two and more: those of like size together, in bounded memory."""
    doublings = np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64)
    for doubling in np.unique(doublings[doublings > 0]).tolist():
        members = np.flatnonzero(doublings == doubling)
        step = max(1, _CELLS_AT_ONCE >> doubling)
        yield from (members[start : start + step] for start in range(0, len(members), step))


def _soften(boxes: Singles, scores: Singles, there: np.ndarray, sigma: float) -> Singles:
    """The same for groups as rows: `boxes` (g, k, 4), `scores` and `there` (g, k)."""
    left, lowered = there.copy(), np.where(there, scores, -np.inf).astype(np.float64)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(axis=2)
    groups = np.arange(len(boxes))
    for _ in range(boxes.shape[1]):
        best = np.where(left, lowered, -np.inf).argmax(axis=1)
        left[groups, best] = False
        chosen = boxes[groups, best][:, None]
        low, high = np.maximum(boxes[..., :2], chosen[..., :2]), np.minimum(boxes[..., 2:], chosen[..., 2:])
        shared = np.clip(high - low, 0, None).prod(axis=2)
        union = areas + areas[groups, best][:, None] - shared
        overlap = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        lowered = np.where(left, lowered * np.exp(-(overlap.astype(np.float64) ** 2) / sigma), lowered)
    return lowered.astype(np.float32)
