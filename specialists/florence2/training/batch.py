"""One batch of a training: pictures that are encoded once, and prompts about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.dense_targets import DenseTargets


@dataclass(frozen=True, eq=False)
class Batch:
    """`pixels` (n, 3, side, side) uint8. `prompts` and `answers` are token ids, each with its start and
    end, and `images` the picture that each is about. `ids` are the pictures' image_ids, where they have any."""

    pixels: NDArray[np.uint8]
    dense: DenseTargets
    images: list[int]
    prompts: list[list[int]]
    answers: list[list[int]]
    ids: tuple[str, ...] = ()
