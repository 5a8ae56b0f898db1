"""Painting: antialiased stamps of shapes, and laying one over the other.

A stamp is drawn several times too large and averaged down, so its alpha is the share of each pixel
that it covers; a pixel belongs to the thing's mask when that is at least one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import PIL.ImageDraw

from data_engine.scenes.shapes import shape
from data_engine.scenes.surfaces import GLASS_OPACITY, surface
from data_engine.scenes.world import RGB

_OVERSAMPLE = 4
_SHADE = 0.38
_LIGHT = 0.6
_SHADOW = 0.32
"""How much of the light a shadow takes."""


@dataclass(frozen=True, eq=False)
class Stamp:
    """What one thing adds to a picture: `alpha` (h, w) uint8 is the share of each pixel that it covers,
    `rgb` (h, w, 3) float32, 0..255. `opacity` below one lets what is behind it show through."""

    alpha: np.ndarray
    rgb: np.ndarray
    opacity: float = 1.0

    @property
    def solid(self) -> np.ndarray:
        """The stamp's mask, (h, w) bool."""
        mask: np.ndarray = self.alpha >= 128
        return mask

    @property
    def height(self) -> int:
        return int(self.alpha.shape[0])

    @property
    def width(self) -> int:
        return int(self.alpha.shape[1])

    def part(self, x0: int, y0: int, x1: int, y1: int) -> Stamp:
        window = np.s_[y0:y1, x0:x1]
        return replace(self, alpha=self.alpha[window], rgb=self.rgb[window])


def polygon(canvas: PIL.ImageDraw.ImageDraw, points: np.ndarray, value: int) -> None:
    canvas.polygon(points.ravel().tolist(), fill=value)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (n, 2) turned about the origin, clockwise as seen in a picture whose y points down."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    after: np.ndarray = points @ np.array([[cos, sin], [-sin, cos]])
    return after


def stamp(
    kind: str,
    colour: RGB,
    paint: str,
    extent: float,
    degrees: float,
    mirrored: bool,
    rng: np.random.Generator,
) -> Stamp:
    """One shape with the surface `paint`, its longer side `extent` pixels before it is turned clockwise."""
    flip = np.array([-1.0 if mirrored else 1.0, 1.0])
    layers = [(layer.paint, turned(layer.points * flip, degrees) * extent / 2) for layer in shape(kind)]
    outline = np.concatenate([points for how, points in layers if how == "fill"])
    low = outline.min(axis=0) - 1
    width, height = (math.ceil(v) for v in outline.max(axis=0) + 1 - low)
    size = (width * _OVERSAMPLE, height * _OVERSAMPLE)
    alpha = PIL.Image.new("L", size)
    on_alpha = PIL.ImageDraw.Draw(alpha)
    # Pillow addresses pixels by their centres: half a large pixel keeps the shape in place.
    large = [(how, (points - low) * _OVERSAMPLE - 0.5) for how, points in layers]
    for how, points in large:
        if how in ("fill", "cut"):
            polygon(on_alpha, points, 255 if how == "fill" else 0)
    rgb = surface(paint, colour, (height, width), extent, degrees, rng)
    if any(how in ("shade", "light") for how, _ in large):
        rgb = _toned(rgb, large, size)
    rgb = np.broadcast_to(rgb, (height, width, 3))
    opacity = GLASS_OPACITY if paint == "glass" else 1.0
    return trimmed(Stamp(np.asarray(alpha.reduce(_OVERSAMPLE)), rgb, opacity))


def _toned(rgb: np.ndarray, layers: Sequence[tuple[str, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """Darker in the shaded parts and lighter in the light ones, where nothing covers them."""
    tone = PIL.Image.new("L", size, 128)
    on_tone = PIL.ImageDraw.Draw(tone)
    value = {"fill": 128, "cut": 128, "shade": 0, "light": 255}
    for how, points in layers:
        polygon(on_tone, points, value[how])
    toned = np.asarray(tone.reduce(_OVERSAMPLE), dtype=np.float32)[..., None] / 127.5 - 1
    rgb = rgb * (1 + np.minimum(toned, 0) * np.float32(_SHADE))
    rgb += (255 - rgb) * (np.maximum(toned, 0) * np.float32(_LIGHT))
    return rgb


def trimmed(whole: Stamp) -> Stamp:
    """Without the empty margin (a crescent's outline is only part of its disc)."""
    rows, columns = np.flatnonzero(whole.alpha.any(axis=1)), np.flatnonzero(whole.alpha.any(axis=0))
    return whole.part(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def lay(
    canvas: np.ndarray, stamps: Sequence[tuple[Stamp, int, int]], shadow: tuple[int, int] | None = None
) -> None:
    """Paint stamps at x, y over a float32 canvas (h, w, 3), in order, in place.

    `shadow` is how far (x, y) each one's shadow falls, on the background and on what lies below it.
    """
    height, width = canvas.shape[:2]
    for one, x, y in stamps:
        if shadow is not None:
            left, top = max(0, x + shadow[0]), max(0, y + shadow[1])
            right, bottom = min(width, x + shadow[0] + one.width), min(height, y + shadow[1] + one.height)
            if left < right and top < bottom:
                x0, y0 = left - x - shadow[0], top - y - shadow[1]
                alpha = one.alpha[y0 : y0 + bottom - top, x0 : x0 + right - left]
                canvas[top:bottom, left:right] *= 1 - alpha[..., None] * np.float32(_SHADOW / 255)
        below = canvas[y : y + one.height, x : x + one.width]
        below += (one.rgb - below) * (one.alpha[..., None] * np.float32(one.opacity / 255))
