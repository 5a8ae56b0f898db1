"""Which labels are likely wrong, by what a detector sees: badly located, called by a wrong name, or overlooked.

After ObjectLab (Tkachenko, Thyagarajan and Mueller, arXiv 2309.00832), with plain IoU as the likeness of two boxes.
The detector may be any of the recipe, a trained student above all, but must not have learnt from the very labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.class_names import ClassNames
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.overlap import Floats, boxes_of, iou
from data_engine.quality.coco import are_detections

VERSION = 1

_TOUCHES = 0.1
"""The IoU from which a detection may be of the label's thing."""

_UNKNOWN = 0.5


class LabelQuality:
    """Scores that hang on the labels of `judged`, and on detections by `witness`; low ones should be looked at.

    - `well_located`, of a label: its largest IoU with a detection of its class; 0.5 where no detection of
      the class is near, which says nothing.
    - `well_named`, of a label: (1 + a - b) / 2, where a is the best score times IoU of a detection of its
      class and b of any other.
    - `not_overlooked`, of a detection: 1 - score x (1 - its largest IoU with a label of its class).

    Labels and detections are regions with a class that hang on nothing; `same` lists other names of a class.
    Detections below `least` do not count; 0.3 is loose, as OWL-ST found best. `needs` must list both sources.
    No image is read. Raises RecipeError.
    """

    needs_pixels = False

    def __init__(
        self, judged: str, witness: str, least: float = 0.3, same: dict[str, list[str]] | None = None
    ) -> None:
        if judged == witness or not 0 <= least <= 1:
            raise RecipeError("judged and witness must differ, and least lie in 0..1", "correct `args`")
        self.judged = judged
        self.witness = witness
        self.least = least
        self.names = ClassNames(same)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """Rows in the order of `said`: two of each label, one of each detection that counts."""
        if said is None:
            raise SpecialistError(
                "there is nothing to judge", f"name {self.judged!r} and {self.witness!r} under `needs`"
            )
        rows = said.filter(are_detections(said))
        sure = pc.fill_null(pc.greater_equal(rows["score"], self.least), True)
        labels = rows.filter(pc.equal(rows["source"], self.judged))
        found = rows.filter(pc.and_(pc.equal(rows["source"], self.witness), sure))
        return [list(self._rows(_of(labels, image.image_id), _of(found, image.image_id))) for image in images]

    def _rows(self, labels: pa.Table, found: pa.Table) -> Iterator[Annotation]:
        overlap = iou(boxes_of(labels["box"]), boxes_of(found["box"]))
        ours, theirs = self.names.keys(labels["text"]), self.names.keys(found["text"])
        alike = ours[:, None] == theirs[None]
        scores = pc.fill_null(found["score"], 1.0).to_numpy().astype(np.float64)
        own = np.where(alike, overlap, 0.0)
        located = own.max(axis=1, initial=0.0)
        located = np.where(located >= _TOUCHES, located, _UNKNOWN)
        named = (1 + (own * scores).max(axis=1, initial=0.0) - _best(overlap * scores, ~alike)) / 2
        overlooked = 1 - scores * (1 - own.max(axis=0, initial=0.0))
        for name, table, values in (
            ("well_located", labels, located),
            ("well_named", labels, named),
            ("not_overlooked", found, overlooked),
        ):
            for annotation_id, value in zip(table["annotation_id"].to_pylist(), values.tolist(), strict=True):
                yield Annotation("region", granularity=name, parent=annotation_id, score=value)


def _best(values: Floats, wanted: np.ndarray) -> Floats:
    best: Any = np.where(wanted, values, 0.0).max(axis=1, initial=0.0)
    return np.asarray(best)


def _of(rows: pa.Table, image_id: str) -> pa.Table:
    return rows.filter(pc.equal(rows["image_id"], image_id))
