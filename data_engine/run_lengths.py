"""COCO's compressed run lengths, read without trusting them: pycocotools reads past the end of a string
that is cut, and trusts the numbers with its memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_engine.errors import ImageError
from data_engine.image import MAX_PIXELS

_MOST_CHARACTERS = 7
"""Of one number: 35 bits hold any run of an image."""


def run_lengths(counts: str) -> NDArray[np.int64]:
    """The runs of a mask, column by column, of pixels outside and inside in turn. They may be negative.

    5 bits a character, low first; from the fourth number on, differences to the last but one (after
    `rleFrString` of pycocotools' maskApi.c). Raises ImageError for what is no such string.
    """
    if not counts.isascii():
        raise ImageError("bad_annotation", "a mask's compressed run lengths are damaged")
    bits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(bits):
        return bits
    if bits.min() < 0 or bits.max() > 63:
        raise ImageError("bad_annotation", "a mask's compressed run lengths are damaged")
    if bits[-1] & 0x20:
        raise ImageError("bad_annotation", "a mask's compressed run lengths are cut")
    ends = np.flatnonzero(bits & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise ImageError("bad_annotation", "a mask's compressed run lengths are damaged")
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    runs: NDArray[np.int64] = np.add.reduceat((bits & 0x1F) << (5 * place), starts)
    runs -= np.where(bits[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def sound(mask: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored mask as it is, `{"size": [h, w], "counts": str}`. Raises ImageError where its runs do not fill it.

    For masks on their way to pycocotools: of one that is too short it gives what happens to lie in memory.
    """
    height, width = (int(side) for side in mask["size"])
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError("bad_annotation", f"a mask of {width} x {height} pixels")
    check_fills(run_lengths(mask["counts"]), height, width)
    return mask


def check_fills(runs: NDArray[np.int64], height: int, width: int) -> None:
    """Raises ImageError unless the runs are those of an image of that size."""
    if not len(runs) or runs.min() < 0 or int(runs.sum()) != height * width:
        raise ImageError("bad_annotation", "a mask's run lengths do not fill the image")
