"""The outline of each kind, as polygons in a unit square: x right, y down, both from -1 to 1.

A shape is painted layer by layer: `fill` adds to it (and covers earlier shades), `cut` takes away, `shade`
darkens what is there without changing the outline. Every shape is scaled so that its longer side fills the square.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Points = np.ndarray  # (n, 2), float64


@dataclass(frozen=True, eq=False)
class Layer:
    paint: Literal["fill", "cut", "shade"]
    points: Points


def _disc(x: float, y: float, rx: float, ry: float | None = None, corners: int = 48) -> Points:
    turn = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + (ry or rx) * np.sin(turn)], axis=1)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=float)


def _regular(corners: int) -> Points:
    turn = -math.pi / 2 + np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _star() -> Points:
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    return _regular(10) * radius


def _heart() -> Points:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 17, -y / 17], axis=1)


def _half_disc(x: float, y: float, rx: float, ry: float) -> Points:
    """The lower half."""
    turn = np.linspace(0, math.pi, 24)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def _layers(kind: str) -> list[Layer]:
    fill = functools.partial(Layer, "fill")
    cut = functools.partial(Layer, "cut")
    shade = functools.partial(Layer, "shade")
    match kind:
        case "circle":
            return [fill(_disc(0, 0, 1))]
        case "square":
            return [fill(_rectangle(-1, -1, 1, 1))]
        case "triangle":
            return [fill(_polygon((0, -0.9), (1, 0.85), (-1, 0.85)))]
        case "star":
            return [fill(_star())]
        case "heart":
            return [fill(_heart())]
        case "cross":
            return [fill(_rectangle(-1, -0.32, 1, 0.32)), fill(_rectangle(-0.32, -1, 0.32, 1))]
        case "ring":
            return [fill(_disc(0, 0, 1)), cut(_disc(0, 0, 0.58))]
        case "crescent":
            return [fill(_disc(0, 0, 1)), cut(_disc(0.52, -0.12, 0.86))]
        case "pentagon":
            return [fill(_regular(5))]
        case "arrow":
            return [
                fill(_rectangle(-1, -0.24, 0.2, 0.24)),
                fill(_polygon((0.1, -0.72), (1, 0), (0.1, 0.72))),
            ]
        case "house":
            return [
                fill(_rectangle(0.38, -0.85, 0.62, -0.2)),
                fill(_rectangle(-0.72, -0.1, 0.72, 0.95)),
                fill(_polygon((0, -0.95), (1, 0), (-1, 0))),
                shade(_polygon((0, -0.95), (1, 0), (-1, 0))),
                shade(_rectangle(-0.5, 0.3, -0.06, 0.95)),
                shade(_rectangle(0.2, 0.2, 0.54, 0.54)),
            ]
        case "cup":
            return [
                fill(_disc(0.5, -0.08, 0.5, 0.46)),
                cut(_disc(0.5, -0.08, 0.27, 0.24)),
                fill(_polygon((-1, -0.8), (0.56, -0.8), (0.4, 0.8), (-0.84, 0.8))),
                fill(_disc(-0.22, -0.8, 0.78, 0.15)),
                shade(_disc(-0.22, -0.8, 0.7, 0.1)),
            ]
        case "tree":
            return [
                fill(_rectangle(-0.17, 0.3, 0.17, 1)),
                shade(_rectangle(-0.17, 0.3, 0.17, 1)),
                fill(_disc(-0.38, 0.05, 0.42)),
                fill(_disc(0.38, 0.05, 0.42)),
                fill(_disc(0, -0.48, 0.52)),
            ]
        case "boat":
            return [
                fill(_polygon((-1, 0.35), (1, 0.35), (0.6, 0.85), (-0.6, 0.85))),
                fill(_rectangle(-0.08, -0.95, 0.04, 0.4)),
                shade(_rectangle(-0.08, -0.95, 0.04, 0.35)),
                fill(_polygon((0.12, -0.9), (0.85, 0.2), (0.12, 0.2))),
                fill(_polygon((-0.16, -0.6), (-0.16, 0.2), (-0.72, 0.2))),
            ]
        case "flower":
            turns = [i * math.pi / 3 for i in range(6)]
            petals = [fill(_disc(0.6 * math.cos(t), 0.6 * math.sin(t), 0.4)) for t in turns]
            return [*petals, fill(_disc(0, 0, 0.5)), shade(_disc(0, 0, 0.32))]
        case "key":
            return [
                fill(_disc(-0.55, 0, 0.45)),
                cut(_disc(-0.6, 0, 0.2)),
                fill(_rectangle(-0.15, -0.12, 1, 0.12)),
                fill(_rectangle(0.75, 0, 0.97, 0.5)),
                fill(_rectangle(0.4, 0, 0.62, 0.4)),
            ]
    raise KeyError(kind)


@functools.cache
def shape(kind: str) -> tuple[Layer, ...]:
    """The layers of a kind, centred, their longer side from -1 to 1. Raises KeyError."""
    layers = _layers(kind)
    filled = np.concatenate([layer.points for layer in layers if layer.paint == "fill"])
    low, high = filled.min(axis=0), filled.max(axis=0)
    centre, half = (low + high) / 2, (high - low).max() / 2
    return tuple(Layer(layer.paint, (layer.points - centre) / half) for layer in layers)
