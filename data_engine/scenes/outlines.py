"""Pieces of which outlines are made: polygons in a unit square, x right, y down, both from -1 to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Points = np.ndarray  # (n, 2), float64


@dataclass(frozen=True, eq=False)
class Layer:
    """`fill` adds to a shape (and covers earlier shades), `cut` takes away, `shade` darkens what is
    there and `light` lightens it, both without changing the outline."""

    paint: Literal["fill", "cut", "shade", "light"]
    points: Points


def fill(points: Points) -> Layer:
    return Layer("fill", points)


def cut(points: Points) -> Layer:
    return Layer("cut", points)


def shade(points: Points) -> Layer:
    return Layer("shade", points)


def light(points: Points) -> Layer:
    return Layer("light", points)


def disc(x: float, y: float, rx: float, ry: float | None = None, corners: int = 48) -> Points:
    turn = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + (ry or rx) * np.sin(turn)], axis=1)


def half_disc(x: float, y: float, rx: float, ry: float) -> Points:
    """The upper half."""
    turn = np.linspace(math.pi, 2 * math.pi, 24)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=float)


def regular(corners: int) -> Points:
    turn = -math.pi / 2 + np.arange(corners) * 2 * math.pi / corners
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def star() -> Points:
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)[:, None]
    return regular(10) * radius


def heart() -> Points:
    t = np.linspace(0, 2 * math.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 17, -y / 17], axis=1)
