"""All errors of a model, in their order, on the rows of one image; and the labels that say what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_engine.annotation import Annotation
from data_engine.noise.boxes import invent, jitter, merge, mislabel, miss, shift, split
from data_engine.noise.captions import rewrite
from data_engine.noise.model import NoiseModel
from data_engine.noise.page import Noisy, Page
from data_engine.noise.phrases import relink
from data_engine.schema import CHANGE

_ORDER = (relink, invent, miss, merge, split, shift, jitter, mislabel, rewrite)


def noisy(width: int, height: int, rows: Sequence[Mapping[str, Any]], model: NoiseModel) -> Noisy:
    """The noisy copy of one image's rows, which are dicts as in data_engine.schema's ANNOTATIONS.

    `width` and `height` are the image's, in pixels. A row that nothing is done to is copied with its
    content (kind, granularity, text, span, box, quad, mask, score); it hangs on its parent's copy, or
    on the same row as before where that is not among `rows`.
    """
    page = Page(width, height, rows, model.seed)
    for step in _ORDER:
        step(page, model)
    return page.result()


def labels(made: Noisy, ids: Sequence[str]) -> list[Annotation]:
    """One row per change: `text` names it, `parent` is the noisy row, `kind` is that row's, and its
    granularity `change` keeps it out of the view of texts.

    `ids` are the annotation ids of `made.annotations`. What the noisy source lacks has its label on the
    true row.
    """
    told = [
        Annotation(row.kind, change, CHANGE, row_id)
        for row, row_id, changes in zip(made.annotations, ids, made.changes, strict=True)
        for change in changes
    ]
    return told + [Annotation(lost.kind, lost.change, CHANGE, lost.annotation_id) for lost in made.lost]
