"""A mask as the path of an SVG: one rectangle for each run of a column, on a grid that is coarse enough for a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from data_engine.errors import ImageError
from data_engine.run_lengths import check_fills, run_lengths

GRID = 192
"""Cells of the longer side, at most."""


def mask_path(mask: Mapping[str, Any]) -> str:
    """The `d` of a path in pixels of the image, for a COCO run-length mask; empty for an empty mask.

    Raises ImageError for run lengths that are none, or that claim more pixels than an image may have.
    """
    height, width = (int(side) for side in mask["size"])
    if not 0 < height * width <= PIL.Image.MAX_IMAGE_PIXELS:  # type: ignore[operator]
        raise ImageError("too_large", f"a mask of {width} x {height} pixels")
    runs = run_lengths(mask["counts"])
    check_fills(runs, height, width)
    step = -(-max(height, width) // GRID)
    inside = (np.arange(len(runs)) % 2).astype(np.int8).repeat(runs).reshape(width, height)[::step, ::step]
    # Column by column: +1 where a run begins, -1 just behind its end.
    edges = np.diff(np.pad(inside, ((0, 0), (1, 1))), axis=1)
    columns, tops = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    lefts, tops, ends = columns * step, tops * step, np.minimum(ends * step, height)
    widths = np.minimum(lefts + step, width) - lefts
    return "".join(
        f"M{x} {y}v{h}h{w}v-{h}z"
        for x, y, h, w in zip(
            lefts.tolist(), tops.tolist(), (ends - tops).tolist(), widths.tolist(), strict=True
        )
    )
