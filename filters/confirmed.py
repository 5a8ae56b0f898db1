"""Keep what two sources have: a box that no other model sees is more often wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.box_pairs import groups_of, overlapping
from data_engine.class_names import ClassNames
from data_engine.errors import RecipeError
from data_engine.quality.coco import are_detections
from filters.nms import DETECTIONS, boxes_of

VERSION = 1


class Confirmed:
    """Drops detections that no other source has: same image, same class, IoU above `iou`.

    - `iou`: 0.65, from which GranD (arXiv 2311.03356) takes two models' boxes for one object.
    - `same`: other names of a class: `{person: [human, pedestrian]}`. Without `by_class` names do not matter.
    - `unless_score`: a box of this score or more needs nobody (GranD trusts confident ones too).
    - `trusted`: sources whose boxes need nobody.

    Its `where` must let several sources through. Rows that are no detections stay. Its value is the number
    of other sources that have the box. Raises RecipeError.
    """

    columns = DETECTIONS

    def __init__(
        self,
        iou: float = 0.65,
        by_class: bool = True,
        same: Mapping[str, Sequence[str]] | None = None,
        unless_score: float | None = None,
        trusted: Sequence[str] = ("human",),
    ) -> None:
        if not 0 <= iou < 1:
            raise RecipeError(f"iou is {iou}", "it must be at least 0 and below 1")
        self.iou = iou
        self.by_class = by_class
        self.names = ClassNames(same)
        self.unless_score = unless_score
        self.trusted = pa.array(trusted, pa.string())

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        keep = self._others(annotations) != 0
        keep |= pc.is_in(annotations["source"], self.trusted).to_numpy()
        if self.unless_score is not None:
            sure = pc.greater_equal(annotations["score"], self.unless_score)
            keep |= pc.fill_null(sure, False).to_numpy()
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        return pa.array(self._others(annotations), pa.float32(), from_pandas=True)

    def _others(self, annotations: pa.Table) -> np.ndarray:
        """How many other sources have each detection's box; no number for other rows."""
        wanted = are_detections(annotations)
        rows = np.flatnonzero(wanted.to_numpy())
        found = annotations.select(["image_id", "text", "source", "box"]).filter(wanted)
        columns = [found["image_id"]]
        if self.by_class:
            columns.append(pa.array(self.names.keys(found["text"]), pa.string()))
        first, second = overlapping(boxes_of(found), groups_of(*columns), np.arange(len(rows)), self.iou)
        sources = groups_of(found["source"])
        count = int(sources.max(initial=0)) + 1
        pairs = np.concatenate([first * count + sources[second], second * count + sources[first]])
        pairs = np.unique(pairs[np.concatenate([sources[first] != sources[second]] * 2)])
        others = np.full(annotations.num_rows, np.nan)
        others[rows] = np.bincount(pairs // count, minlength=len(rows))
        return others
