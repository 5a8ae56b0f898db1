"""Outlines of the pretraining world's kinds. Actors look to the right."""

from __future__ import annotations

import math

from data_engine.scenes.outlines import (
    Layer,
    cut,
    disc,
    fill,
    heart,
    light,
    polygon,
    rectangle,
    regular,
    shade,
    star,
)  # fmt: skip

_PETALS = [i * math.pi / 3 for i in range(6)]

SHAPES: dict[str, list[Layer]] = {
    "circle": [fill(disc(0, 0, 1))],
    "square": [fill(rectangle(-1, -1, 1, 1))],
    "triangle": [fill(polygon((0, -0.9), (1, 0.85), (-1, 0.85)))],
    "star": [fill(star())],
    "heart": [fill(heart())],
    "cross": [fill(rectangle(-1, -0.32, 1, 0.32)), fill(rectangle(-0.32, -1, 0.32, 1))],
    "ring": [fill(disc(0, 0, 1)), cut(disc(0, 0, 0.58))],
    "crescent": [fill(disc(0, 0, 1)), cut(disc(0.52, -0.12, 0.86))],
    "pentagon": [fill(regular(5))],
    "arrow": [
        fill(rectangle(-1, -0.24, 0.2, 0.24)),
        fill(polygon((0.1, -0.72), (1, 0), (0.1, 0.72))),
    ],
    "house": [
        fill(rectangle(0.38, -0.85, 0.62, -0.2)),
        fill(rectangle(-0.72, -0.1, 0.72, 0.95)),
        fill(polygon((0, -0.95), (1, 0), (-1, 0))),
        shade(polygon((0, -0.95), (1, 0), (-1, 0))),
        shade(rectangle(-0.5, 0.3, -0.06, 0.95)),
        shade(rectangle(0.2, 0.2, 0.54, 0.54)),
    ],
    "cup": [
        fill(disc(0.5, -0.08, 0.5, 0.46)),
        cut(disc(0.5, -0.08, 0.27, 0.24)),
        fill(polygon((-1, -0.8), (0.56, -0.8), (0.4, 0.8), (-0.84, 0.8))),
        fill(disc(-0.22, -0.8, 0.78, 0.15)),
        shade(disc(-0.22, -0.8, 0.7, 0.1)),
    ],
    "tree": [
        fill(rectangle(-0.17, 0.3, 0.17, 1)),
        shade(rectangle(-0.17, 0.3, 0.17, 1)),
        fill(disc(-0.38, 0.05, 0.42)),
        fill(disc(0.38, 0.05, 0.42)),
        fill(disc(0, -0.48, 0.52)),
    ],
    "boat": [
        fill(polygon((-1, 0.35), (1, 0.35), (0.6, 0.85), (-0.6, 0.85))),
        fill(rectangle(-0.08, -0.95, 0.04, 0.4)),
        shade(rectangle(-0.08, -0.95, 0.04, 0.35)),
        fill(polygon((0.12, -0.9), (0.85, 0.2), (0.12, 0.2))),
        fill(polygon((-0.16, -0.6), (-0.16, 0.2), (-0.72, 0.2))),
    ],
    "flower": [
        *(fill(disc(0.6 * math.cos(t), 0.6 * math.sin(t), 0.4)) for t in _PETALS),
        fill(disc(0, 0, 0.5)),
        shade(disc(0, 0, 0.32)),
    ],
    "key": [
        fill(disc(-0.55, 0, 0.45)),
        cut(disc(-0.6, 0, 0.2)),
        fill(rectangle(-0.15, -0.12, 1, 0.12)),
        fill(rectangle(0.75, 0, 0.97, 0.5)),
        fill(rectangle(0.4, 0, 0.62, 0.4)),
    ],
    # A disc like the circle, told apart by its seams and its gleam.
    "ball": [
        fill(disc(0, 0, 1)),
        shade(polygon((-0.1, -1), (0.1, -1), (0.1, 1), (-0.1, 1))),
        shade(polygon((-1, -0.1), (1, -0.1), (1, 0.1), (-1, 0.1))),
        light(disc(0.42, -0.45, 0.24)),
    ],
    "dog": [
        fill(rectangle(-0.72, 0.2, -0.52, 0.95)),
        fill(rectangle(-0.4, 0.2, -0.22, 0.95)),
        fill(rectangle(0.1, 0.2, 0.28, 0.95)),
        fill(rectangle(0.38, 0.2, 0.58, 0.95)),
        shade(rectangle(-0.4, 0.45, -0.22, 0.95)),
        shade(rectangle(0.1, 0.45, 0.28, 0.95)),
        fill(polygon((-0.75, -0.2), (0.6, -0.25), (0.6, 0.45), (-0.75, 0.4))),
        fill(polygon((-0.98, -0.72), (-0.84, -0.76), (-0.6, -0.1), (-0.75, 0.05))),
        fill(disc(0.55, -0.45, 0.36)),
        fill(polygon((0.6, -0.58), (1, -0.45), (1, -0.2), (0.6, -0.15))),
        shade(polygon((0.3, -0.8), (0.5, -0.75), (0.42, -0.2), (0.22, -0.3))),
        shade(disc(0.66, -0.52, 0.08, corners=12)),
    ],
    "robot": [
        fill(rectangle(-0.06, -0.98, 0.04, -0.7)),
        fill(rectangle(-0.4, -0.78, 0.42, -0.22)),
        fill(rectangle(-0.55, -0.16, 0.5, 0.55)),
        fill(rectangle(-0.45, 0.5, -0.12, 0.95)),
        fill(rectangle(0.08, 0.5, 0.42, 0.95)),
        fill(rectangle(0.4, 0, 0.85, 0.2)),
        fill(rectangle(0.75, -0.12, 0.9, 0.32)),
        shade(rectangle(0.02, -0.62, 0.34, -0.42)),
        shade(rectangle(-0.35, 0, 0.3, 0.35)),
        light(rectangle(-0.25, 0.08, -0.1, 0.26)),
    ],
    "bird": [
        fill(disc(-0.02, 0.05, 0.66, 0.48)),
        fill(disc(0.5, -0.38, 0.32)),
        fill(polygon((0.74, -0.48), (1.05, -0.32), (0.74, -0.2))),
        shade(polygon((0.74, -0.48), (1.05, -0.32), (0.74, -0.2))),
        fill(polygon((-0.5, -0.1), (-1, -0.42), (-0.95, 0.12), (-0.5, 0.3))),
        shade(polygon((0.1, -0.12), (-0.55, -0.3), (-0.3, 0.35))),
        fill(rectangle(-0.08, 0.45, 0, 0.85)),
        fill(rectangle(0.14, 0.45, 0.22, 0.85)),
        shade(disc(0.58, -0.44, 0.07, corners=12)),
    ],
}
