"""The best threshold of all that there are, on examples of which it is known what each side of it is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_engine.overlap import Floats


def sweep(
    values: Floats, above: Floats, below: Floats, fixed: tuple[float, float], truths: float, default: float
) -> tuple[float, float]:
    """The threshold of `values` (n,) that gives the best F1, and that F1.

    `above` and `below` (n, 2) are how many statements an example makes, and how many of them are right, at a
    threshold that is not above its value and at one that is. `fixed` is the same of all other statements,
    `truths` how many there should be. Every cut between two different values is tried. Of equally good ones
    that is taken which lies nearest to `default`, and the default itself where it is one of them.
    """
    order = np.argsort(values, kind="stable")
    values, above, below = values[order], above[order], below[order]
    # The first k examples lie below the cut.
    counts, rights = (
        fixed[i] + np.append(0.0, np.cumsum(below[:, i])) + np.append(np.cumsum(above[::-1, i])[::-1], 0.0)
        for i in (0, 1)
    )
    total = counts + truths
    scores = np.divide(2 * rights, total, out=np.zeros_like(rights), where=total > 0)
    cuts = np.append(True, np.append(values[1:] > values[:-1], True)) if len(values) else np.array([True])
    best = np.flatnonzero(cuts & (scores >= scores[cuts].max() - 1e-12))
    low, high = np.append(-np.inf, values)[best], np.append(values, np.inf)[best]
    # A value that equals the threshold lies above it.
    near = np.where(
        (low < default) & (default <= high), 0.0, np.minimum(abs(default - low), abs(default - high))
    )
    chosen = int(near.argmin())
    return _between(float(low[chosen]), float(high[chosen]), default), float(scores[best[chosen]])


def first_claims(values: Floats, truths: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 for an example that is right about something: of several about one truth, that of the highest value.

    `truths` (n,) is the number of the truth that an example is right about, or -1.
    """
    order = np.argsort(-values, kind="stable")
    _, first = np.unique(truths[order], return_index=True)
    claims = np.zeros(len(values))
    claims[order[first]] = 1.0
    claims[truths < 0] = 0.0
    return claims


def _between(low: float, high: float, default: float) -> float:
    """A threshold between two neighbouring values, halfway, unless the default lies between them.

    Below the lowest value it is half of that; above the highest, halfway to what no value reaches.
    """
    if low < default <= high:
        return default
    if np.isinf(low):
        return max(high, 0.0) / 2
    if np.isinf(high):
        return (low + max(low, 1.0)) / 2 if low < 1 else float(np.nextafter(low, np.inf)) + 0.01
    return (low + high) / 2
