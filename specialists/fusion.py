"""One set of regions out of what several detectors said, each with the rows that it was made from.

Ensembles of detectors are better than any one of them when their boxes are averaged rather than thinned
out (arXiv 1910.13302), and what two models of different make have is more likely there (GranD, arXiv
2311.03356). The methods themselves are in `specialists.box_fusion`; docs/merging.md says when to use which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.class_names import ClassNames
from data_engine.errors import ImageError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.overlap import Floats, boxes_of
from data_engine.quality.coco import are_detections
from data_engine.recipe import RESERVED
from data_engine.schema import MEMBER
from specialists.box_fusion import Clusters, Ints, agreement, strongest_first, weighted

VERSION = 2

_IOU = {"weighted": 0.55, "agreement": 0.65}


@dataclass(frozen=True, slots=True, eq=False)
class _Detections:
    """Detections row by row. `scores` has a NaN where there is none; `sources` index the detectors."""

    ids: np.ndarray
    texts: np.ndarray
    classes: np.ndarray
    boxes: Floats
    scores: Floats
    sources: Ints

    def take(self, rows: Ints) -> _Detections:
        return _Detections(
            self.ids[rows],
            self.texts[rows],
            self.classes[rows],
            self.boxes[rows],
            self.scores[rows],
            self.sources[rows],
        )


class Fusion:
    """Regions of granularity `phrase`, best first; each with a row of granularity `member` per row it was made from.

    A member's row has the fused region as parent, and as text the `annotation_id` of the row that went into
    it (the view `members` joins them). Regions with a class name and no parent are fused; nothing of them
    is changed where they stand.

    - `detectors`: the specialists of `needs` to fuse, two or more: names, or names with weights,
      `{yolo: 2, florence2: 1}`. They are named because one that found nothing counts too.
    - `method`: `weighted` (weighted boxes fusion) or `agreement` (only what two architectures have).
    - `iou`: from which two boxes are one thing; 0.55 for `weighted` (the paper's), 0.65 for `agreement`
      (GranD's).
    - `same`: other names of a class: `{person: [human, pedestrian]}`; the fused row has the first.
    - `by_label`: whether only boxes of one class are fused. GranD's rule looks at boxes alone; then the
      strongest member's name is taken.
    - `architectures`: detectors that are too alike to confirm each other, `{yolo_s: yolo, yolo_m: yolo}`;
      for `agreement` only. By default each detector is one of its own.
    - `unscored`: what a box without a score counts for. Where no member has a score the fused row has none.
    - `max_boxes`: of each image, the strongest; it bounds time. How many were left out is a failure
      of reason `too_many`; the image's other boxes are fused.

    Raises RecipeError.
    """

    needs_pixels = False

    def __init__(
        self,
        detectors: Sequence[str] | Mapping[str, float],
        method: str = "weighted",
        iou: float | None = None,
        same: Mapping[str, Sequence[str]] | None = None,
        by_label: bool = True,
        architectures: Mapping[str, str] | None = None,
        unscored: float = 1.0,
        max_boxes: int = 2000,
    ) -> None:
        if method not in _IOU:
            raise RecipeError(f"{method!r} is no method of fusion", f"write {' or '.join(_IOU)}")
        if isinstance(detectors, str) or len(set(detectors)) < 2:
            raise RecipeError("fusion needs two or more `detectors`", "list their names, as under `needs`")
        weights = dict(detectors) if isinstance(detectors, Mapping) else dict.fromkeys(detectors, 1.0)
        if not all(0 < weight < float("inf") for weight in weights.values()):
            raise RecipeError("a detector's weight must be above 0", "correct `detectors`")
        self.iou = _IOU[method] if iou is None else iou
        if not 0 < self.iou < 1 or not 0 <= unscored <= 1 or max_boxes < 1:
            raise RecipeError(
                "iou must lie between 0 and 1, unscored in 0..1, and max_boxes be at least 1",
                "correct `args`",
            )
        unknown = sorted(set(architectures or {}) - set(weights))
        if unknown or (architectures and method != "agreement"):
            raise RecipeError(
                f"`architectures` has {unknown[0]!r}, which is none of the `detectors`"
                if unknown
                else "`architectures` are for the method agreement",
                "correct `args`",
            )
        self.method = method
        self.names = list(weights)
        self.weights = np.array([weights[name] for name in self.names], np.float64)
        groups = [(architectures or {}).get(name, name) for name in self.names]
        self.architectures = np.array([groups.index(group) for group in groups], np.int64)
        self.classes = ClassNames(same)
        self.by_label = by_label
        self.unscored = unscored
        self.max_boxes = max_boxes

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """Each image's fused regions with their members; an image of which no detector said anything has none."""
        if said is None:
            raise SpecialistError("there is nothing to fuse", "name the detectors under `needs`")
        self._check_sources(said)
        rows = said.filter(pc.and_(are_detections(said), pc.is_in(said["source"], pa.array(self.names))))
        found = self._detections(rows)
        places = pc.index_in(rows["image_id"], pa.array([image.image_id for image in images], pa.string()))
        where = pc.fill_null(places, -1).to_numpy()
        by_image = np.argsort(where, kind="stable")
        ends = np.searchsorted(where[by_image], np.arange(len(images) + 1))
        return [list(self._image(found.take(by_image[ends[i] : ends[i + 1]]))) for i in range(len(images))]

    def _check_sources(self, said: pa.Table) -> None:
        """A misspelt detector would be one that never finds anything, and lower every score."""
        for source in pc.unique(said["source"]).to_pylist():
            if source not in self.names and source not in RESERVED:
                raise SpecialistError(
                    f"{source!r} is needed, but none of the `detectors` {', '.join(self.names)}",
                    "name it under `detectors` too, or leave it out of `needs`",
                )

    def _detections(self, rows: pa.Table) -> _Detections:
        scores = pc.fill_null(rows["score"], float("nan")).combine_chunks()
        return _Detections(
            rows["annotation_id"].to_numpy(),
            rows["text"].to_numpy(),
            self.classes.keys(rows["text"]),
            boxes_of(rows["box"]),
            scores.to_numpy(zero_copy_only=False).astype(np.float64),
            pc.index_in(rows["source"], pa.array(self.names)).to_numpy().astype(np.int64),
        )

    def _image(self, found: _Detections) -> Iterator[Annotation | ImageError]:
        order = strongest_first(found.boxes, self._strengths(found))
        chosen = found.take(order[: self.max_boxes])
        yield from self._regions(chosen)
        if len(order) > self.max_boxes:
            left_out = len(order) - self.max_boxes
            yield ImageError(
                "too_many", f"the {left_out:,} weakest of {len(order):,} boxes were left out of the fusion"
            )

    def _regions(self, found: _Detections) -> Iterator[Annotation]:
        """`found` is strongest first, and so are the members of each region."""
        made: list[tuple[float, list[float], Ints]] = []
        for rows in self._groups(found):
            clusters = self._fused(found.take(rows))
            for number, box in enumerate(clusters.boxes.tolist()):
                made.append((float(clusters.scores[number]), box, rows[clusters.of == number]))
        for score, box, members in sorted(made, key=lambda region: (-region[0], region[1])):
            unscored = np.isnan(found.scores[members])
            # The box that agrees is its founder's, and so is its score; a mean is all members'.
            without = unscored.all() if self.method == "weighted" else unscored[0]
            text = self.classes.written(found.texts[members[0]])
            region = Annotation("region", text, "phrase", box=box, score=None if without else min(score, 1.0))
            yield region
            for annotation_id in found.ids[members].tolist():
                yield Annotation("region", annotation_id, MEMBER, region)

    def _groups(self, found: _Detections) -> Iterator[Ints]:
        if not self.by_label:
            yield np.arange(len(found.boxes))
            return
        by_class: dict[str, list[int]] = {}
        for row, class_ in enumerate(found.classes.tolist()):
            by_class.setdefault(class_, []).append(row)
        yield from (np.array(rows, np.int64) for rows in by_class.values())

    def _fused(self, found: _Detections) -> Clusters:
        scores = self._scores(found)
        if self.method == "weighted":
            return weighted(found.boxes, scores, found.sources, self.weights, self.iou)
        architectures = self.architectures[found.sources]
        return agreement(found.boxes, scores, self._strengths(found), architectures, self.iou)

    def _scores(self, found: _Detections) -> Floats:
        return np.where(np.isnan(found.scores), self.unscored, found.scores)

    def _strengths(self, found: _Detections) -> Floats:
        return self._scores(found) * self.weights[found.sources]
