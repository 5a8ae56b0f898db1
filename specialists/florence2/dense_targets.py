"""What lies under each feature of an image, as the dense head of training is asked (`locating.DenseHead`).

Apart from it, so that processes that draw scenes need no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.locations import BINS


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """What lies under each image feature of n pictures, features in rows from the top left.

    `covered` (n, features) bool; `words` (n, features, words) bool; `boxes` (n, features, 4) bins.
    """

    covered: NDArray[np.bool_]
    words: NDArray[np.bool_]
    boxes: NDArray[np.int64]


def dense_targets(
    things: Sequence[tuple[Sequence[int], Sequence[float]]], grid: int, words: int
) -> DenseTargets:
    """Targets of one picture from its things: indices of their words, and boxes as shares of the sides.

    A feature belongs to the smallest box that holds its middle. A box narrower than a feature counts as
    one feature wide, so that everything has at least one.
    """
    covered = np.zeros((1, grid, grid), dtype=np.bool_)
    hot = np.zeros((1, grid, grid, words), dtype=np.bool_)
    boxes = np.zeros((1, grid, grid, 4), dtype=np.int64)

    def reach(low: float, high: float) -> slice:
        short = max(0.0, 1 / grid - (high - low)) / 2
        start = int(np.ceil((low - short) * grid - 0.5 - 1e-9))
        stop = int(np.floor((high + short) * grid - 0.5 + 1e-9))
        return slice(max(start, 0), max(stop + 1, 0))

    for described, (x0, y0, x1, y1) in sorted(
        things, key=lambda t: -(t[1][2] - t[1][0]) * (t[1][3] - t[1][1])
    ):
        at = (0, reach(y0, y1), reach(x0, x1))
        covered[at] = True
        hot[at] = False
        hot[(*at, list(described))] = True
        boxes[at] = np.clip(np.floor(np.array([x0, y0, x1, y1]) * BINS), 0, BINS - 1).astype(np.int64)
    return DenseTargets(
        covered.reshape(1, -1), hot.reshape(1, grid * grid, words), boxes.reshape(1, grid * grid, 4)
    )


def joined(parts: Sequence[DenseTargets]) -> DenseTargets:
    """The targets of several pictures, or batches of them, one after the other."""
    return DenseTargets(
        np.concatenate([part.covered for part in parts]),
        np.concatenate([part.words for part in parts]),
        np.concatenate([part.boxes for part in parts]),
    )
