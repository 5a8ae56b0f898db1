"""Where one thing stands as seen from another. Each world tells relations of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

Box = tuple[float, float, float, float]

_CLEAR = 0.08
"""How far apart, as a share of the shorter side, things must be for their order to be told."""


def sides(a: np.ndarray, b: np.ndarray, side: float) -> list[str]:
    """Left, right, above, below, next to: of boxes (n, 4) as seen from boxes (m, 4)."""
    (ax, ay), (bx, by) = _centres(a), _centres(b)
    dx, dy = ax.mean() - bx.mean(), ay.mean() - by.mean()
    clear = _CLEAR * side
    if abs(dx) > 1.3 * abs(dy):
        gap = max(a[:, 0].min() - b[:, 2].max(), b[:, 0].min() - a[:, 2].max())
        close = ["next to"] if 0 <= gap < 0.12 * side and abs(dy) < 0.1 * side else []
        if ax.max() < bx.min() - clear:
            return ["to the left of", "left of", *close]
        if ax.min() > bx.max() + clear:
            return ["to the right of", "right of", *close]
    elif abs(dy) > 1.3 * abs(dx):
        if ay.max() < by.min() - clear:
            return ["above"]
        if ay.min() > by.max() + clear:
            return ["below"]
    return []


def corners(a: np.ndarray, b: np.ndarray, side: float) -> list[str]:
    """Diagonals, beside, far from: of boxes (n, 4) as seen from boxes (m, 4)."""
    (ax, ay), (bx, by) = _centres(a), _centres(b)
    dx, dy = ax.mean() - bx.mean(), ay.mean() - by.mean()
    clear = _CLEAR * side
    across = "left" if ax.max() < bx.min() - clear else "right" if ax.min() > bx.max() + clear else ""
    upright = "upper" if ay.max() < by.min() - clear else "lower" if ay.min() > by.max() + clear else ""
    if across and upright and 0.4 < abs(dx / dy) < 2.5:
        return [f"to the {upright} {across} of"]
    gap = max(a[:, 0].min() - b[:, 2].max(), b[:, 0].min() - a[:, 2].max())
    if across and 0 <= gap < 0.2 * side and abs(dy) < 0.12 * side:
        return ["beside"]
    if np.hypot(dx, dy) > 0.85 * side:
        return ["far from"]
    return []


RELATIONS: Mapping[str, Callable[[np.ndarray, np.ndarray, float], list[str]]] = MappingProxyType(
    {"sides": sides, "corners": corners}
)


def relation(kind: str, a: Sequence[Box], b: Sequence[Box], side: float, rng: np.random.Generator) -> str:
    """How all of `a` stand to all of `b` in a picture of that shorter side; empty where that is not clear."""
    found = RELATIONS[kind](np.array(a, dtype=float), np.array(b, dtype=float), side)
    return found[int(rng.integers(len(found)))] if found else ""


def _centres(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
