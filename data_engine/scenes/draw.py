"""Painting: antialiased stamps of shapes, backgrounds, and laying one over the other.

A stamp is drawn several times too large and averaged down, so its alpha is the share of each pixel
that it covers; a pixel belongs to the thing's mask when that is at least one half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw

from data_engine.scenes.shapes import shape
from data_engine.scenes.world import PATTERNS, RGB, TONES

_OVERSAMPLE = 4
_SHADE = 0.38
_STRIPE = 0.86
"""How dark the darker stripes are beside the lighter."""


@dataclass(frozen=True, eq=False)
class Stamp:
    """What one thing adds to a picture: `alpha` (h, w) uint8 and `rgb` (h, w, 3) float32, 0..255."""

    alpha: np.ndarray
    rgb: np.ndarray

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


@dataclass(frozen=True)
class Background:
    """`tones` are names of `world.TONES`: one, or the two ends of a gradient."""

    pattern: str
    tones: tuple[str, ...]

    def colours(self) -> np.ndarray:
        """Samples of every colour that the pattern shows, (n, 3): what objects must stand out from."""
        ends = np.array([TONES[tone] for tone in self.tones], dtype=float)
        if self.pattern == "striped":
            ends = np.concatenate([ends, ends * _STRIPE])
        weight = np.linspace(0, 1, 5)[:, None]
        samples: np.ndarray = ends[0] * (1 - weight) + ends[-1] * weight
        return samples


def polygon(canvas: PIL.ImageDraw.ImageDraw, points: np.ndarray, value: int) -> None:
    canvas.polygon([(float(x), float(y)) for x, y in points], fill=value)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points (n, 2) turned about the origin, clockwise as seen in a picture whose y points down."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    after: np.ndarray = points @ np.array([[cos, sin], [-sin, cos]])
    return after


def stamp(kind: str, colour: RGB, extent: float, degrees: float) -> Stamp:
    """One shape, its longer side `extent` pixels before it is turned by `degrees` clockwise."""
    layers = [(layer.paint, turned(layer.points, degrees) * extent / 2) for layer in shape(kind)]
    outline = np.concatenate([points for paint, points in layers if paint == "fill"])
    low = outline.min(axis=0) - 1
    width, height = (math.ceil(v) for v in outline.max(axis=0) + 1 - low)
    size = (width * _OVERSAMPLE, height * _OVERSAMPLE)
    alpha, shade = PIL.Image.new("L", size), PIL.Image.new("L", size)
    on_alpha, on_shade = PIL.ImageDraw.Draw(alpha), PIL.ImageDraw.Draw(shade)
    for paint, points in layers:
        # Pillow addresses pixels by their centres: half a large pixel keeps the shape in place.
        large = (points - low) * _OVERSAMPLE - 0.5
        if paint == "shade":
            polygon(on_shade, large, 255)
        else:
            polygon(on_alpha, large, 255 if paint == "fill" else 0)
            polygon(on_shade, large, 0)
    dark = np.asarray(shade.reduce(_OVERSAMPLE), dtype=np.float32)[..., None] / 255
    rgb = np.array(colour, dtype=np.float32) * (1 - _SHADE * dark)
    return trimmed(Stamp(np.asarray(alpha.reduce(_OVERSAMPLE)), rgb))


def trimmed(whole: Stamp) -> Stamp:
    """Without the empty margin (a crescent's outline is only part of its disc)."""
    rows, columns = np.flatnonzero(whole.alpha.any(axis=1)), np.flatnonzero(whole.alpha.any(axis=0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Stamp(whole.alpha[part], whole.rgb[part])


def lay(canvas: np.ndarray, stamps: Sequence[tuple[Stamp, int, int]]) -> None:
    """Paint stamps at x, y over a float32 canvas (h, w, 3), in order, in place."""
    for one, x, y in stamps:
        below = canvas[y : y + one.height, x : x + one.width]
        below += (one.rgb - below) * (one.alpha[..., None] / np.float32(255))


def random_background(rng: np.random.Generator) -> Background:
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))]
    count = 2 if pattern == "gradient" else 1
    chosen = rng.choice(len(TONES), size=count, replace=False)
    names = tuple(TONES)
    return Background(pattern, tuple(names[int(i)] for i in chosen))


def paint_background(background: Background, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A float32 canvas (height, width, 3), 0..255."""
    first = np.array(TONES[background.tones[0]], dtype=np.float32)
    last = np.array(TONES[background.tones[-1]], dtype=np.float32)
    canvas = np.empty((height, width, 3), dtype=np.float32)
    match background.pattern:
        case "gradient":
            angle = rng.uniform(0, 2 * math.pi)
            x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
            y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
            along = x * math.cos(angle) + y * math.sin(angle)
            weight = ((along - along.min()) / (along.max() - along.min()))[..., None]
            canvas[:] = first + (last - first) * weight
        case "speckled":
            grain = int(rng.integers(1, 4))
            noise = 13 * rng.standard_normal((-(-height // grain), -(-width // grain)), dtype=np.float32)
            noise = noise.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
            np.add(noise[..., None], first, out=canvas)
        case "striped":
            angle = rng.uniform(0, math.pi)
            period = float(rng.uniform(0.06, 0.16)) * min(width, height)
            x = np.arange(width, dtype=np.float32)[None, :]
            y = np.arange(height, dtype=np.float32)[:, None]
            wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * np.float32(2 * math.pi / period))
            dark = np.clip(wave * period / 4 + 0.5, 0, 1)[..., None]  # an edge about one pixel wide
            canvas[:] = first * (1 - (1 - _STRIPE) * dark)
        case _:
            canvas[:] = first
    return canvas
