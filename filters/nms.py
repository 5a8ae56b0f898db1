"""Non-maximum suppression: of boxes that overlap, the one with the best score stays.

FLD-5B's regions are thinned out so after detection (arXiv 2311.06242, section 4.2). Box for box the same
as torchvision's `nms`, and as `batched_nms` by class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.box_pairs import Ints, Singles, best_first, groups_of, overlapping
from data_engine.errors import RecipeError
from data_engine.quality.coco import are_detections

VERSION = 1

DETECTIONS = ("image_id", "kind", "granularity", "text", "parent_id", "box", "score", "source")
"""The columns that say which rows are detections, and of what."""

_ROUNDS = 32


class Nms:
    """Drops detections that a better one of their image overlaps at an IoU above `iou`.

    - `iou`: 0.5, where two boxes are one thing by COCO's mildest measure. For crowded scenes take more.
    - `by_class`: only boxes of one class suppress each other. Without, one thing under two names is kept
      under the surer one.
    - `by_source`: only boxes of one source suppress each other.
    - `above`: sources that win over every score (people have none), in their order.

    Detections are regions with a class that hang on nothing; other rows stay. A box without a score
    counts as sure; one whose score is no number comes last. Equal scores: the row said first.
    Its value is the score. Raises RecipeError.
    """

    columns = DETECTIONS

    def __init__(
        self,
        iou: float = 0.5,
        by_class: bool = True,
        by_source: bool = False,
        above: Sequence[str] = ("human",),
    ) -> None:
        if not 0 <= iou < 1:
            raise RecipeError(f"iou is {iou}", "it must be at least 0 and below 1")
        self.iou = iou
        self.by_class = by_class
        self.by_source = by_source
        self.above = pa.array(above, pa.string())

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        wanted = are_detections(annotations)
        rows = np.flatnonzero(wanted.to_numpy())
        found = annotations.select(["image_id", "text", "source", "box", "score"]).filter(wanted)
        columns = [found["image_id"]]
        columns += [found["text"]] if self.by_class else []
        columns += [found["source"]] if self.by_source else []
        keep = np.ones(annotations.num_rows, bool)
        groups = groups_of(*columns)
        keep[rows] = suppress(boxes_of(found), groups, self._order(found, groups), self.iou)
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        return annotations["score"].combine_chunks()

    def _order(self, found: pa.Table, groups: Ints) -> Ints:
        """Group by group, in each the sources that win over others first, and of one source the best."""
        above = pc.fill_null(pc.index_in(found["source"], self.above), len(self.above)).to_numpy()
        order = best_first(groups, sure_scores(found))
        if (above == above[:1]).all():
            return order
        return order[np.lexsort((above[order], groups[order]))]


def boxes_of(rows: pa.Table) -> Singles:
    """The boxes of rows that all have one, (n, 4), as they are stored."""
    values = pc.list_flatten(rows["box"]).to_numpy()
    return np.ascontiguousarray(values, np.float32).reshape(-1, 4)


def sure_scores(rows: pa.Table) -> Singles:
    """The rows' scores: 1 where there is none, and less than any where it is no number."""
    scores = pc.fill_null(rows["score"], 1.0).to_numpy().astype(np.float32)
    return np.where(np.isnan(scores), np.float32(-1), scores)


def suppress(
    boxes: Singles, groups: Ints, order: Ints, iou: float, friends: Ints | None = None
) -> np.ndarray:
    """Which boxes (n, 4) stay: in `order`, each that stays takes out what it overlaps in its group, but
    none with its own number in `friends` (n,)."""
    first, second = overlapping(boxes, groups, order, iou)
    if friends is not None:
        strangers = friends[first] != friends[second]
        first, second = first[strangers], second[strangers]
    place = np.empty(len(boxes), np.int64)
    place[order] = np.arange(len(boxes))
    return decided(first, second, len(boxes), place)


def decided(first: Ints, second: Ints, count: int, place: Ints) -> np.ndarray:
    """Which of `count` rows stay, where of each pair that `first` stays takes out `second`.

    `place` (count,) orders the rows; of each pair `first` comes before.
    """
    keep = np.ones(count, bool)
    # What no undecided row precedes is decided: it stays. All of those at once, and what they take out.
    open_ = np.zeros(count, bool)
    open_[second] = True
    for _ in range(_ROUNDS):
        if not len(first):
            return keep
        sure = ~open_[first]
        keep[second[sure]] = False
        left = keep[first] & keep[second] & ~sure
        first, second = first[left], second[left]
        open_[:] = False
        open_[second] = True
    # A long chain of rows, each after the next: one by one.
    for i in np.argsort(place[first], kind="stable").tolist():
        if keep[first[i]]:
            keep[second[i]] = False
    return keep
