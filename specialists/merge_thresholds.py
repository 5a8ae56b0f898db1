"""From examples of one kind of statement to the thresholds that make most of them right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_engine.overlap import Floats
from specialists.merge_examples import Examples
from specialists.merge_matching import iou_of_pairs
from specialists.merge_settings import (
    ADD_ABOVE,
    DEFAULTS,
    DOUBT_LOCATED,
    DOUBT_NAMED,
    MOVE,
    RENAME,
    SHIFT,
    WEIGHT,
)
from specialists.merge_sweep import first_claims, sweep

_WEIGHTS = tuple(2.0**power for power in range(-6, 11))
"""A student's scores may all be as low as some hundredths, and originals without scores count as sure."""


def switched(rows: np.ndarray, default: float) -> float:
    """Where the mean is best of what rows (value, worth above the threshold, worth below it) are worth."""
    ones = np.ones(len(rows))
    above, below = (np.column_stack([ones, rows[:, i]]) for i in (1, 2))
    return sweep(rows[:, 0], above, below, (0.0, 0.0), float(len(rows)), default)[0]


def text_thresholds(
    found: Mapping[tuple[str, str], list[tuple[float, ...]]], least: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Thresholds of texts by name and key, and how many examples each was found from.

    `found` are rows for `switched`. Of fewer than `least` texts of a granularity those of all together tell more than a
    default.
    """
    together: dict[str, list[tuple[float, ...]]] = {}
    for (name, _), rows in found.items():
        together.setdefault(name, []).extend(rows)
    chosen: dict[str, dict[str, float]] = {}
    examples: dict[str, dict[str, int]] = {}
    for (name, key), own in found.items():
        rows = own if len(own) >= least else together[name]
        if len(rows) >= least:
            chosen.setdefault(name, {})[key] = switched(np.array(rows), DEFAULTS[name])
            examples.setdefault(name, {})[key] = len(rows)
    return chosen, examples


def thresholds_of(found: Examples, least: int) -> tuple[dict[str, float], dict[str, int]]:
    """Thresholds of one key, and how many examples each was found from."""
    values: dict[str, float] = {}
    counts: dict[str, int] = {}
    agreed = np.array(found.agreed, np.float64).reshape(-1, 15)
    if len(agreed) >= least:
        weight, move = weighed(agreed, least)
        values[WEIGHT], counts[WEIGHT] = weight, len(agreed)
        if move is not None:
            values[MOVE], counts[MOVE] = move, int((~np.isnan(agreed[:, 0])).sum())
    fixed = np.array(found.fixed, np.int64)
    taken = np.unique(fixed[fixed >= 0])
    base = (float(len(fixed)), float(len(taken)))

    state = _State(base, taken, found.truths)
    for name, rows in ((SHIFT, found.near), (RENAME, found.renamed)):
        either = np.array(rows, np.float64).reshape(-1, 3)
        known = int((~np.isnan(either[:, 0])).sum())
        if known >= least:
            values[name], counts[name] = state.best(either, DEFAULTS[name]), known
        state.decide(either, values.get(name, DEFAULTS[name]))
    base, taken = state.said_right, state.taken

    kept = _Kept(np.array(found.kept, np.float64).reshape(-1, 4), taken)
    added = np.array(found.added, np.float64).reshape(-1, 2)
    claims = first_claims(
        added[:, 0], np.where(np.isin(added[:, 1], taken), -1, added[:, 1]).astype(np.int64)
    )
    additions = np.column_stack([np.ones(len(added)), claims])
    # One after the other, as long as it helps: each depends on what the others let through.
    current = {name: DEFAULTS[name] for name in (DOUBT_NAMED, DOUBT_LOCATED, ADD_ABOVE)}
    best = -1.0
    for _ in range(10):
        f1 = best
        for name, column in ((DOUBT_NAMED, 0), (DOUBT_LOCATED, 1)):
            if kept.known(column) >= least:
                plus = additions[added[:, 0] >= current[ADD_ABOVE]].sum(axis=0)
                rest = (base[0] + plus[0], base[1] + plus[1])
                current[name], f1 = kept.swept(column, current, rest, found.truths, DEFAULTS[name])
                counts[name] = kept.known(column)
        if len(added) >= least:
            plus = kept.total(current)
            rest = (base[0] + plus[0], base[1] + plus[1])
            nothing = np.zeros_like(additions)
            current[ADD_ABOVE], f1 = sweep(
                added[:, 0], additions, nothing, rest, found.truths, DEFAULTS[ADD_ABOVE]
            )
            counts[ADD_ABOVE] = len(added)
        if f1 <= best + 1e-12:
            break
        best = f1
    values.update({name: value for name, value in current.items() if name in counts})
    return values, counts


def weighed(agreed: Floats, least: int) -> tuple[float, float | None]:
    """The weight of `_WEIGHTS` and the threshold of places at which the boxes of `Examples.agreed` (n, 15) overlap
    truth's most on average. None for the threshold where fewer than `least` places were judged."""
    judged = ~np.isnan(agreed[:, 0])
    true = agreed[:, 11:15]
    theirs = iou_of_pairs(agreed[:, 7:11], true)
    found: list[tuple[float, float, float | None]] = []
    for weight in _WEIGHTS:
        means = iou_of_pairs(_means(agreed, weight), true)
        move: float | None = None
        if judged.sum() >= least:
            move = switched(np.column_stack([agreed[:, 0], means, theirs])[judged], DEFAULTS[MOVE])
        moved = agreed[:, 0] < (DEFAULTS[MOVE] if move is None else move)
        found.append((float(np.where(moved, theirs, means).mean()), weight, move))
    best = max(share for share, _, _ in found)
    near = [one for one in found if one[0] >= best - 1e-12]
    _, weight, move = min(near, key=lambda one: abs(math.log(one[1] / DEFAULTS[WEIGHT])))
    return weight, move


def _means(agreed: Floats, weight: float) -> Floats:
    ours, theirs = agreed[:, 1:2], weight * agreed[:, 6:7]
    means: Floats = (ours * agreed[:, 2:6] + theirs * agreed[:, 7:11]) / np.maximum(ours + theirs, 1e-12)
    return np.where(ours + theirs > 0, means, agreed[:, 2:6])


@dataclass(slots=True, eq=False)
class _State:
    """What is decided so far: how many statements are made and how many of them are right, the truths that have one, and
    how many truths there are. Then rows of (likelihood, truth of the original, truth of the student's), of each of which
    one side is made."""

    said_right: tuple[float, float]
    taken: np.ndarray
    truths: int

    def best(self, either: np.ndarray, default: float) -> float:
        """The likelihood below which it is best to take the student's."""
        known = ~np.isnan(either[:, 0])
        right = self._right(either)[known]
        above, below = (np.column_stack([np.ones(len(right)), right[:, i]]) for i in (0, 1))
        return sweep(either[known, 0], above, below, self.said_right, self.truths, default)[0]

    def decide(self, either: np.ndarray, threshold: float) -> None:
        right, students = self._right(either), either[:, 0] < threshold
        said, so_far = self.said_right
        self.said_right = (
            said + len(either),
            so_far + float(np.where(students, right[:, 1], right[:, 0]).sum()),
        )
        self.taken = np.union1d(self.taken, np.where(students, either[:, 2], either[:, 1]))

    def _right(self, either: np.ndarray) -> np.ndarray:
        return np.asarray((either[:, 1:] >= 0) & ~np.isin(either[:, 1:], self.taken))


@dataclass(slots=True, eq=False)
class _Kept:
    """Originals that nothing confirms: rows of (named, located, truth, truth of what the student says instead)."""

    rows: np.ndarray
    taken: np.ndarray

    def known(self, column: int) -> int:
        return int((~np.isnan(self.rows[:, column])).sum())

    def worth(self, kept: np.ndarray) -> np.ndarray:
        """(n, 2): statements that come of each, and how many of them are right."""
        truth = np.where(kept, self.rows[:, 2], self.rows[:, 3])
        said = np.where(kept, 1.0, (self.rows[:, 3] > -2).astype(np.float64))
        right = (truth >= 0) & ~np.isin(truth, self.taken)
        return np.column_stack([said, right.astype(np.float64)])

    def total(self, current: dict[str, float]) -> np.ndarray:
        return np.asarray(self.worth(self._passes(0, current) & self._passes(1, current)).sum(axis=0))

    def swept(
        self, column: int, current: dict[str, float], rest: tuple[float, float], truths: int, default: float
    ) -> tuple[float, float]:
        """The best threshold of one likelihood, while the other's stands."""
        known = ~np.isnan(self.rows[:, column])
        other = self._passes(1 - column, current)
        above, below = self.worth(other), self.worth(np.zeros(len(self.rows), bool))
        plus = above[~known].sum(axis=0)
        fixed = (rest[0] + float(plus[0]), rest[1] + float(plus[1]))
        return sweep(self.rows[known, column], above[known], below[known], fixed, truths, default)

    def _passes(self, column: int, current: dict[str, float]) -> np.ndarray:
        threshold = current[(DOUBT_NAMED, DOUBT_LOCATED)[column]]
        return np.asarray(~(self.rows[:, column] < threshold))
