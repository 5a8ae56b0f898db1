"""Masks of a part of an image as COCO run lengths of the whole: what lies around is never written out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def encode_at(
    mask: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any] | None:
    """A mask (h, w) whose top left pixel is `corner` (x, y), as `{"size": [height, width], "counts": str}`.

    `size` is the image's (width, height), which the mask must not leave. None when no pixel is set. Time
    and memory are those of the mask, however large the image; the counts are what pycocotools gives
    for the mask drawn into an empty image.
    """
    width, height = size
    x, y = corner
    # Runs go down the columns: each column between two empty pixels, so that its runs end in it.
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), np.int8)
    columns[:, 1:-1] = mask.T
    column, row = np.nonzero(np.diff(columns, axis=1))
    if not len(column):
        return None
    places = (column + x) * height + row + y
    starts, ends = places[0::2], places[1::2]
    # A run that reaches the bottom of the image goes on at the top of its next column.
    apart = ends[:-1] != starts[1:]
    starts, ends = starts[np.concatenate([[True], apart])], ends[np.concatenate([apart, [True]])]
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)
    if counts[-1] == 0:
        counts = counts[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
