"""Masks for boxes: which statements ask for one, and how the masks that a segmenter made become rows.

Every segmenter that is prompted with boxes goes by this (specialists.grabcut, .sam, .detector_sam).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from data_engine.image import Image
from specialists.mask_encoding import encode_at
from specialists.said import Statement

Rows = list[dict[str, Any] | None]
"""`mask`, its `box` and its `score` (NaN where the model gave none), per mask; None for one without a pixel."""

PIXELS_AT_ONCE = 1 << 25
"""Masks are enlarged to the image's size as float32: 128 MiB of them, and as much again on the way."""


def box_to_fill(statement: Statement, image: Image) -> tuple[float, float, float, float] | None:
    """The box of a statement that asks for a mask of it.

    None for a line of text (granularity `ocr`), for what is a mask itself, for a further text of a region,
    whose own row asks already, and for a box beyond the image.
    """
    if statement.box is None or statement.masked or statement.granularity == "ocr":
        return None
    if statement.kind == "region" and statement.parent is not None:
        return None
    x0, y0, x1, y1 = statement.box
    if x0 >= image.width or y0 >= image.height or x1 <= 0 or y1 <= 0:
        return None
    return statement.box


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """What an image's statements ask for.

    `boxes` (n, 4) are x0, y0, x1, y1 in pixels, within the image, each once; `box_of[i]` is the row in it of
    `asking[i]`, a statement.
    """

    asking: list[Statement]
    boxes: NDArray[np.float32]
    box_of: NDArray[np.intp]

    def annotations(self, rows: Rows) -> list[Annotation | ImageError]:
        """One per statement, in their order, of the rows of its boxes' masks.

        A mask without a pixel gives none. One whose score is no number is told of as a failure.
        """
        made: list[Annotation | ImageError] = []
        lost = 0
        for statement, index in zip(self.asking, self.box_of.tolist(), strict=True):
            row = rows[index]
            if row is None:
                continue
            if np.isnan(row["score"]):
                lost += 1
            else:
                made.append(Annotation(statement.kind, parent=statement.reference, **row))
        if lost:
            made.append(
                ImageError("bad_annotation", f"the model gave no number for the score of {lost} masks")
            )
        return made


def prompts(image: Image, given: Sequence[Statement]) -> Prompts:
    """The prompts of an image's statements; boxes that are not finite or have no area are none."""
    asking = [(one, box) for one in given if (box := box_to_fill(one, image)) is not None]
    boxes = np.array([box for _, box in asking], np.float32).reshape(-1, 4)
    finite = np.isfinite(boxes).all(axis=1)
    boxes = np.clip(boxes, 0, np.array([image.width, image.height] * 2, np.float32))
    sound = finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    distinct, box_of = np.unique(boxes[sound], axis=0, return_inverse=True)
    kept = [statement for (statement, _), good in zip(asking, sound, strict=True) if good]
    return Prompts(kept, distinct, box_of)


def mask_rows(masks: NDArray[np.bool_], scores: NDArray[np.float32]) -> Rows:
    """Of masks (n, height, width), each as large as the image, and their scores (n,), moved into 0..1.

    A row's box is the mask's own extent, in pixel edges. A network that overflows gives NaN for everything,
    which makes an empty mask too: its row stays, so that it is told of.
    """
    scores = np.where(np.isfinite(scores), np.clip(scores, 0, 1), np.nan)
    height, width = masks.shape[1:]
    columns, lines = np.asarray(masks.any(axis=1)), np.asarray(masks.any(axis=2))
    x0, y0 = columns.argmax(axis=1), lines.argmax(axis=1)
    x1, y1 = width - columns[:, ::-1].argmax(axis=1), height - lines[:, ::-1].argmax(axis=1)
    extents = np.stack([x0, y0, x1, y1], axis=1)
    rows: Rows = []
    for i, score in enumerate(scores.tolist()):
        left, top, right, bottom = box = tuple(extents[i].tolist())
        rle = encode_at(masks[i, top:bottom, left:right], (left, top), (width, height))
        told = rle is not None or np.isnan(score)
        rows.append({"mask": rle, "box": box, "score": score} if told else None)
    return rows
