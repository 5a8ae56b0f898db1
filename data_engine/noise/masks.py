"""Masks (COCO run lengths) that follow a changed box. A pixel belongs to a box when its centre lies in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pycocotools.mask

from data_engine.noise.page import Box
from data_engine.run_lengths import sound

Mask = dict[str, Any]


def stretched(mask: Mask, old: Box, new: Box) -> Mask | None:
    """What lies in the box `old`, moved and stretched into `new` by nearest pixels. None where nothing is left."""
    pixels = _pixels(mask)
    columns, from_columns = _sampled(old[0], old[2], new[0], new[2], pixels.shape[1])
    rows, from_rows = _sampled(old[1], old[3], new[1], new[3], pixels.shape[0])
    moved = np.zeros_like(pixels)
    moved[np.ix_(rows, columns)] = pixels[np.ix_(from_rows, from_columns)]
    return _mask(moved)


def cut(mask: Mask, box: Box) -> Mask | None:
    """What lies in the box. None where that is nothing."""
    return stretched(mask, box, box)


def united(a: Mask, b: Mask) -> Mask:
    """Both. Masks of different sizes cannot be: then the first."""
    if a["size"] != b["size"]:
        return a
    return _plain(pycocotools.mask.merge([sound(a), sound(b)]))


def _sampled(old0: float, old1: float, new0: float, new1: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the pixels whose centre lies in the new interval, and for each one of the old."""
    to = np.arange(max(0, math.ceil(new0 - 0.5)), min(size, math.ceil(new1 - 0.5)))
    at = old0 + (to + 0.5 - new0) * ((old1 - old0) / (new1 - new0))
    return to, np.floor(at).astype(np.int64).clip(0, size - 1)


def _pixels(mask: Mask) -> np.ndarray:
    whole = sound(mask)
    pixels: np.ndarray = pycocotools.mask.decode({"size": whole["size"], "counts": whole["counts"]})
    return pixels


def _mask(pixels: np.ndarray) -> Mask | None:
    if not pixels.any():
        return None
    return _plain(pycocotools.mask.encode(np.asfortranarray(pixels)))


def _plain(rle: dict[str, Any]) -> Mask:
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
