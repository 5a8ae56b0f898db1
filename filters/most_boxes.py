"""Keep only the best boxes of each image: a detector that floods one image must not fill a training batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from data_engine.box_pairs import best_first, groups_of
from data_engine.errors import RecipeError
from data_engine.quality.coco import are_detections
from filters.nms import DETECTIONS, sure_scores

VERSION = 1


class MostBoxes:
    """Keeps the `most` detections of each image with the best scores (100 is what COCO's evaluation takes).

    - `by_class`: so many of each class. `by_source`: so many of each source.

    Other rows stay. A box without a score counts as sure; equal scores: the rows said first. Its value is
    the box's place, from 1. Raises RecipeError.
    """

    columns = DETECTIONS

    def __init__(self, most: int = 100, by_class: bool = False, by_source: bool = False) -> None:
        if most < 1:
            raise RecipeError(f"most is {most}", "it must be at least 1")
        self.most = most
        self.by_class = by_class
        self.by_source = by_source

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        places = self._places(annotations)
        return pa.array(np.isnan(places) | (places <= self.most))

    def values(self, annotations: pa.Table) -> pa.Array:
        return pa.array(self._places(annotations), pa.float32(), from_pandas=True)

    def _places(self, annotations: pa.Table) -> np.ndarray:
        wanted = are_detections(annotations)
        rows = np.flatnonzero(wanted.to_numpy())
        found = annotations.select(["image_id", "text", "source", "score"]).filter(wanted)
        columns = [found["image_id"]]
        columns += [found["text"]] if self.by_class else []
        columns += [found["source"]] if self.by_source else []
        groups = groups_of(*columns)
        order = best_first(groups, sure_scores(found))
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order))) + 1
        places = np.full(annotations.num_rows, np.nan)
        places[rows[order]] = place
        return places
