"""Labels that people made and those of models, merged: what people drew is never drawn twice.

FLD-5B merges the labels that a source already has with the specialists' (arXiv 2311.06242, section 4.1).
How is not published. Here people's rows always stay; of the models' boxes `RepeatsHuman` drops those that
people have drawn, and `Unconfirmed` those that people would have drawn. Other kinds of statements stay
side by side (docs/merging.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.box_pairs import overlapping
from data_engine.class_names import ClassNames
from data_engine.errors import RecipeError
from data_engine.overlap import Floats, boxes_of, paired_iou
from data_engine.quality.coco import are_detections
from filters.nms import DETECTIONS

VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Of each row: whether it is a model's detection, its largest IoU with a person's box of its image and
    class (0 where there is none), its class, and whether a person names that class in that image."""

    model: np.ndarray
    overlap: Floats
    classes: pa.Array
    named: np.ndarray


class RepeatsHuman:
    """Drops a model's box that repeats a person's: same image, same class, IoU `iou` or more.

    0.5 is what detections are matched with everywhere. `people` are the sources that win, `same` other
    names of a class: `{person: [human, pedestrian]}`. Its value is the IoU. `where` must let people's
    rows through as well as the models'. Raises RecipeError.
    """

    columns = DETECTIONS

    def __init__(
        self,
        iou: float = 0.5,
        people: Sequence[str] = ("human",),
        same: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        _check(iou)
        self.iou = iou
        self.people = list(people)
        self.names = ClassNames(same)

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        found = _find(annotations, self.people, self.names)
        return pa.array(~(found.model & (found.overlap >= self.iou)))

    def values(self, annotations: pa.Table) -> pa.Array:
        return _values(_find(annotations, self.people, self.names))


class Unconfirmed:
    """Drops a model's box of a class that people labelled completely, where none of their boxes is it.

    - `classes`: what people labelled in every image of the data set, wherever it is to be seen.
    - `where_named`: true where they labelled completely each class that they named in an image, by a box
      or as a label of the image (granularity `class`), as in Open Images.
    - `iou`, `people` and `same` as in `RepeatsHuman`; with the same `iou` no box is dropped by both.

    A class that is in neither is not complete: the models' boxes of it stay. Its value is the largest IoU
    with a person's box of that class. Raises RecipeError.
    """

    columns = DETECTIONS

    def __init__(
        self,
        classes: Sequence[str] = (),
        where_named: bool = False,
        iou: float = 0.5,
        people: Sequence[str] = ("human",),
        same: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        _check(iou)
        if isinstance(classes, str) or not (classes or where_named):
            raise RecipeError(
                "nothing says which classes people labelled completely",
                "list them as `classes`, or write where_named: true",
            )
        self.iou = iou
        self.people = list(people)
        self.names = ClassNames(same)
        self.complete = {self.names.key(name) for name in classes}
        self.where_named = where_named

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        found = _find(annotations, self.people, self.names)
        complete = pc.is_in(found.classes, pa.array(sorted(self.complete), pa.string())).to_numpy(
            zero_copy_only=False
        )
        if self.where_named:
            complete |= found.named
        return pa.array(~(found.model & complete & (found.overlap < self.iou)))

    def values(self, annotations: pa.Table) -> pa.Array:
        return _values(_find(annotations, self.people, self.names))


def _check(iou: float) -> None:
    if not 0 < iou <= 1:
        raise RecipeError(f"iou is {iou}", "it must lie above 0 and not above 1")


def _values(found: _Found) -> pa.Array:
    return pa.array(found.overlap, pa.float32(), mask=~found.model)


def _find(annotations: pa.Table, people: Sequence[str], names: ClassNames) -> _Found:
    count = annotations.num_rows
    box = are_detections(annotations).to_numpy()
    human = pc.is_in(annotations["source"], pa.array(people, pa.string())).to_numpy()
    label = (
        pc.equal(annotations["kind"], "text").to_numpy()
        & pc.fill_null(pc.equal(annotations["granularity"], "class"), False).to_numpy()
        & pc.is_valid(annotations["text"]).to_numpy()
    )
    known = box | label
    classes = np.full(count, -1)
    keys = pc.dictionary_encode(
        pa.array(names.keys(annotations["text"].filter(pa.array(known))), pa.string())
    )
    classes[known] = keys.indices.to_numpy()
    # One number for each image and class; rows that have no class have none.
    images = pc.dictionary_encode(annotations["image_id"].combine_chunks()).indices.to_numpy()
    place = images.astype(np.int64) * (len(keys.dictionary) + 1) + classes + 1

    model, drawn = box & ~human, box & human
    overlap = np.zeros(count)
    # Only places where both have boxes are compared.
    rows = np.flatnonzero(box & np.isin(place, place[drawn]) & np.isin(place, place[model]))
    boxes = boxes_of(annotations["box"].take(pa.array(rows)))
    singles = boxes.astype(np.float32)
    first, second = overlapping(singles, place[rows], np.arange(len(rows)), 0.0)
    mixed = human[rows[first]] != human[rows[second]]
    first, second = first[mixed], second[mixed]
    best = paired_iou(boxes[first], boxes[second])
    for side in (first, second):
        np.maximum.at(overlap, rows[side], np.where(model[rows[side]], best, 0))
    named = np.isin(place, place[known & human])
    return _Found(model, overlap, keys.dictionary.take(pa.array(classes, mask=classes < 0)), named)
