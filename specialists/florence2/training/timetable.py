"""Which images each step of a training sees: the same for any number of processes, and from any step on.

In an epoch every image comes once. Shards come in an order drawn from the seed and the epoch, a few of them
at a time; the images of those few are mixed and dealt out to steps of nearly equal size. So a step is known from
its number, and only the shards in hand need to be read.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.training.plan import Plan

_EPOCHS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Step `number` of the `steps` over the mixed images of `shards`, number `window` of epoch `epoch`."""

    epoch: int
    window: int
    shards: tuple[int, ...]
    number: int
    steps: int


class Timetable:
    """Steps of up to `batch` images over a plan's shards, `mixed` of them at a time."""

    def __init__(self, plan: Plan, batch: int, mixed: int, seed: int) -> None:
        self.batch, self.mixed, self.seed = batch, mixed, seed
        self.taught = np.array([shard.taught for shard in plan.shards], dtype=np.int64)
        self._epoch = lru_cache(_EPOCHS_KEPT)(self._make_epoch)
        self._first = [0]
        """Of each epoch the number of its first step, as far as they were asked for."""

    def steps(self, epochs: float) -> int:
        """How many steps so many epochs take, at least one."""
        whole, part = int(epochs), epochs - int(epochs)
        found = self._first_of(whole)
        return max(1, found + math.ceil(part * (self._first_of(whole + 1) - found)))

    def _first_of(self, epoch: int) -> int:
        while len(self._first) <= epoch:
            self._first.append(self._first[-1] + int(self._epoch(len(self._first) - 1)[1][-1]))
        return self._first[epoch]

    def place(self, step: int) -> Place:
        """Where a step lies; steps are counted from 0 over all epochs."""
        while self._first[-1] <= step:
            self._first_of(len(self._first))
        epoch = bisect.bisect_right(self._first, step) - 1
        step -= self._first[epoch]
        order, ends = self._epoch(epoch)
        window = int(np.searchsorted(ends, step, side="right"))
        begun = int(ends[window - 1]) if window else 0
        shards = order[window * self.mixed : (window + 1) * self.mixed]
        return Place(epoch, window, tuple(shards.tolist()), step - begun, int(ends[window]) - begun)

    def _make_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order of shards, and of each window of them the number of the first step after it."""
        rng = np.random.default_rng([self.seed, 1, epoch])
        order = rng.permutation(np.flatnonzero(self.taught))
        starts = np.arange(0, len(order), self.mixed)
        images = np.add.reduceat(self.taught[order], starts)
        return order, np.cumsum(-(-images // self.batch))

    def images(self, place: Place, ids: Sequence[str]) -> list[str]:
        """The images of one step, of the `ids` of all its window's images in the shards' order."""
        rng = np.random.default_rng([self.seed, 2, place.epoch, place.window])
        mixed = rng.permutation(len(ids))
        return [ids[i] for i in np.array_split(mixed, place.steps)[place.number].tolist()]
