"""Masks to polygons that are short enough to be written as location tokens.

Holes are not drawn, since the format has none: the outline of a ring is that of a disc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from data_engine.errors import MissingPackageError
from data_engine.run_lengths import sound

MAX_POINTS = 20
"""Corners of one polygon, at most."""

MAX_PARTS = 6
"""Polygons of one mask, at most: the largest."""

_TOLERANCE = 0.01
"""How far a polygon may leave the outline, as a share of its length (Douglas-Peucker); it is raised by
half until `MAX_POINTS` are enough."""

_SMALLEST_PART = 0.03
"""A part smaller than this share of the largest is left out."""

_SCALE = 2
"""Masks are traced enlarged: a contour runs through the middles of border pixels, half a pixel inside."""


def outlines(mask: Mapping[str, Any]) -> list[NDArray[np.float64]]:
    """Polygons (n, 2) of x, y in pixels around each part of a COCO run-length mask, the largest first.

    Each runs clockwise as seen in the image, from the corner with the smallest x + y. Empty for an empty
    mask. Raises MissingPackageError without OpenCV, ImageError for run lengths that are none.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError.of(error.name or "cv2", "ocr") from error
    rle = {"size": list(mask["size"]), "counts": sound(mask)["counts"]}
    x, y, width, height = (int(v) for v in pycocotools.mask.toBbox(rle))
    if not width or not height:
        return []
    pixels: NDArray[np.uint8] = pycocotools.mask.decode(rle)[y : y + height, x : x + width]
    enlarged = np.ascontiguousarray(pixels.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1))
    found, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = sorted(found, key=cv2.contourArea, reverse=True)[:MAX_PARTS]
    if not found:
        return []
    smallest = _SMALLEST_PART * cv2.contourArea(found[0])
    rings = []
    for contour in found:
        if cv2.contourArea(contour) < smallest:
            break
        points = _simplified(contour, cv2)
        if len(points) >= 3:
            # The middle of an enlarged pixel, back in the image's pixels.
            rings.append(_from_top_left((points + 0.5) / _SCALE + (x, y)))
    return rings


def _simplified(contour: Any, cv2: Any) -> NDArray[np.float64]:
    tolerance = _TOLERANCE * cv2.arcLength(contour, True)
    while True:
        points: NDArray[np.float64] = cv2.approxPolyDP(contour, tolerance, True)[:, 0].astype(np.float64)
        if len(points) <= MAX_POINTS:
            return points
        tolerance *= 1.5


def _from_top_left(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    after = np.roll(ring, -1, axis=0)
    # The shoelace sum is positive for a clockwise ring where y grows downwards.
    if (ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum() < 0:
        ring = ring[::-1]
    return np.roll(ring, -int(ring.sum(axis=1).argmin()), axis=0)
