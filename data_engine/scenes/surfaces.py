"""What a thing is made of, or painted with: the colour of each of its pixels.

A surface is painted over a square (h, w) in coordinates u, v that turn with the thing, so stripes lean
when their star does. Every one leaves at least about half of the pixels near the thing's own colour: a
striped red star must still be seen to be red.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from data_engine.scenes.world import PLAIN, RGB

GLASS_OPACITY = 0.72
"""What is behind glass shows through it."""

_SOFT = 1.6
"""Width in pixels over which an edge between two paints fades."""

_TILE = 768


def surface(
    name: str, colour: RGB, size: tuple[int, int], extent: float, degrees: float, rng: np.random.Generator
) -> np.ndarray:
    """RGB (h, w, 3) float32, or (1, 1, 3) where it is the same everywhere. `extent` is the thing's longer side."""
    base = np.array(colour, dtype=np.float32)
    if name == PLAIN:
        return base[None, None, :]
    height, width = size
    angle = math.radians(degrees)
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(width / 2)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(height / 2)
    u = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
    v = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
    shift = np.float32(rng.uniform(0, 1))
    weight, accent = _painted(name, base, u, v, extent, shift, rng)
    painted: np.ndarray = base + (accent - base) * weight[..., None]
    return painted


def noise_window(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Unit noise (height, width) float32, read-only: a window at random in a fixed tile, which costs nothing."""
    tile = _tile()
    most = len(tile)
    if height <= most and width <= most:
        y, x = int(rng.integers(most - height + 1)), int(rng.integers(most - width + 1))
        return tile[y : y + height, x : x + width]
    return tile[np.arange(height)[:, None] % most, np.arange(width)[None, :] % most]


@functools.cache
def _tile() -> np.ndarray:
    tile = np.random.default_rng(20_311).standard_normal((_TILE, _TILE), dtype=np.float32)
    tile.setflags(write=False)
    return tile


def _painted(
    name: str,
    base: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    extent: float,
    shift: np.float32,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """How much of the second paint each pixel has (h, w), 0..1, and that paint."""
    contrast = _lightened(base) if base @ (0.3, 0.59, 0.11) < 150 else _darkened(base)
    match name:
        case "striped":
            return _wave(u, extent / 4.5, shift), contrast
        case "dotted":
            often = np.float32(2 * math.pi / (extent / 4.2))
            bumps = np.cos(u * often + shift) * np.cos(v * often)
            return _edge(bumps - 0.35, extent / 4.2 / 4), contrast
        case "checkered":
            a, b = _wave(u, extent / 3, shift), _wave(v, extent / 3, shift)
            return a + b - 2 * a * b, contrast
        case "zigzag":
            period = extent / 3.2
            bent = v + np.abs((u / np.float32(period) + shift) % 1 - 0.5) * np.float32(period)
            return _wave(bent, extent / 4, shift), contrast
        case "speckled":
            height, width = np.broadcast_shapes(u.shape, v.shape)
            grain = max(2, round(extent / 22))
            coarse = noise_window(rng, -(-height // grain), -(-width // grain)) > 0.75
            return coarse.repeat(grain, 0).repeat(grain, 1)[:height, :width].astype(np.float32), contrast
        case "hatched":
            lines = np.maximum(_line(u + v, extent / 4, 0.24), _line(u - v, extent / 4, 0.24))
            return lines, contrast
        case "wooden":
            rings = np.sin(
                (u + 3 * np.sin(v / np.float32(extent / 5) + shift)) * np.float32(2 * math.pi / (extent / 7))
            )
            brown = (base * 0.45 + np.array((86, 52, 20), dtype=np.float32) * 0.4).astype(np.float32)
            return (0.5 + 0.5 * rings) * np.float32(0.75), brown
        case "metal":
            along = (u * np.float32(0.7) + v) / np.float32(extent)
            gleam = np.exp(-(((along + shift * np.float32(0.3)) * 6) ** 2)) * np.float32(0.9)
            band = np.exp(-(((along - 0.28) * 9) ** 2)) * np.float32(0.45)
            shine = _darkened(base) if base.min() > 190 else np.array((255, 255, 255), dtype=np.float32)
            return np.maximum(gleam, band).astype(np.float32), shine
        case "glass":
            slant = (u - v) / np.float32(extent)
            gleam = np.exp(-(((slant - 0.25) * 14) ** 2)) + np.exp(-(((slant - 0.42) * 22) ** 2))
            white = np.array((255, 255, 255), np.float32)
            return np.minimum(gleam, 1).astype(np.float32) * np.float32(0.85), white
        case "woolen":
            period = extent / 9
            rows = _wave(
                v + np.abs((u / np.float32(period)) % 1 - 0.5) * np.float32(period * 0.9), period, shift
            )
            return rows * np.float32(0.55), _darkened(base)
        case "stone":
            height, width = np.broadcast_shapes(u.shape, v.shape)
            grain = max(1, round(extent / 40))
            noise = noise_window(rng, -(-height // grain), -(-width // grain))
            noise = noise.repeat(grain, 0).repeat(grain, 1)[:height, :width]
            return np.clip(0.35 + 0.3 * noise, 0, 0.85).astype(np.float32), np.array((96, 94, 90), np.float32)
        case "paper":
            folds = ((u > 0) ^ (v > u * np.float32(0.4))).astype(np.float32) * np.float32(0.3)
            return folds + _line(v - u * np.float32(0.4), extent * 4, 0.02) * np.float32(0.3), _darkened(base)
    raise KeyError(name)


def _lightened(base: np.ndarray) -> np.ndarray:
    lighter: np.ndarray = base + (255 - base) * np.float32(0.68)
    return lighter


def _darkened(base: np.ndarray) -> np.ndarray:
    darker: np.ndarray = base * np.float32(0.48)
    return darker


def _edge(signed: np.ndarray, scale: float) -> np.ndarray:
    """0 to 1 where a value crosses zero, over `_SOFT` pixels; the value changes by 1 in `scale` pixels."""
    faded: np.ndarray = np.clip(signed * np.float32(scale / _SOFT) + 0.5, 0, 1)
    return faded


def _wave(along: np.ndarray, period: float, shift: np.float32) -> np.ndarray:
    """A square wave with soft edges: 1 in half of every period."""
    phase = (along / np.float32(period) + shift) % 1
    return _edge(0.25 - np.abs(phase - 0.5), period)


def _line(along: np.ndarray, period: float, share: float) -> np.ndarray:
    """1 on lines that fill `share` of every period."""
    phase = (along / np.float32(period)) % 1
    return _edge(share / 2 - np.abs(phase - 0.5), period)
