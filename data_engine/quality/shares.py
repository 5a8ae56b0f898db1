"""Measures as two numbers per image, so that what chance does to them can be told.

Every measure that rounds of refinement are judged by is a part of a whole, summed over images: right boxes of
boxes, true phrases of phrases. Drawing the images anew, with replacement, shows how far the value would have
moved had other images been looked at (the bootstrap: Efron, Annals of Statistics 1979). Two sets of labels of
the same images are compared on the same draws, so that what makes an image hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_AT_ONCE = 4_000_000
"""Numbers of one chunk of draws: 32 MB."""


@dataclass(frozen=True, eq=False)
class Shares:
    """A measure: `part` and `whole`, (n,) each, of the images `image_ids`, which differ from one another."""

    image_ids: tuple[str, ...]
    part: Floats
    whole: Floats

    @classmethod
    def of(cls, rows: Iterable[tuple[str, float, float]]) -> Shares:
        """From (image_id, part, whole), where an image may have several rows: they are added up."""
        sums: dict[str, list[float]] = {}
        for image_id, part, whole in rows:
            one = sums.setdefault(image_id, [0.0, 0.0])
            one[0] += part
            one[1] += whole
        numbers = np.array(list(sums.values()), np.float64).reshape(-1, 2)
        return cls(tuple(sums), numbers[:, 0], numbers[:, 1])

    @property
    def value(self) -> float:
        """The sum of parts over that of wholes; NaN where there is nothing to divide by."""
        whole = self.whole.sum()
        return float(self.part.sum() / whole) if whole else float("nan")

    def at(self, image_ids: tuple[str, ...]) -> Shares:
        """The same of these images in this order; those that it does not have count nothing."""
        places = {image_id: place for place, image_id in enumerate(self.image_ids)}
        found = np.array([places.get(image_id, -1) for image_id in image_ids], np.int64)
        part, whole = np.append(self.part, 0.0), np.append(self.whole, 0.0)
        return Shares(image_ids, part[found], whole[found])


@dataclass(frozen=True)
class Estimate:
    """A value and the interval around it; NaN where there is nothing to measure."""

    value: float
    low: float
    high: float


def estimate(shares: Shares, confidence: float = 0.95, draws: int = 2000, seed: int = 0) -> Estimate:
    """A measure's value, with the percentile interval of so many draws of its images."""
    values = np.concatenate([_values(shares, w) for w in _drawn(len(shares.image_ids), draws, seed)])
    return Estimate(shares.value, *_interval(values, confidence))


def change(
    before: Shares, after: Shares, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Estimate:
    """`after` less `before`, both on the same draws of the images that either knows."""
    images = tuple(dict.fromkeys([*before.image_ids, *after.image_ids]))
    before, after = before.at(images), after.at(images)
    values = np.concatenate(
        [_values(after, weights) - _values(before, weights) for weights in _drawn(len(images), draws, seed)]
    )
    return Estimate(after.value - before.value, *_interval(values, confidence))


def _drawn(images: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, (some of the draws, images), until all draws are made."""
    rng = np.random.default_rng(seed)
    chunk = max(1, min(draws, _AT_ONCE // max(1, images)))
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        if images:
            yield rng.multinomial(images, np.full(images, 1 / images), size=count).astype(np.float64)
        else:
            yield np.zeros((count, 0))


def _values(shares: Shares, weights: Floats) -> Floats:
    whole = weights @ shares.whole
    values: Floats = np.divide(weights @ shares.part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return values


def _interval(values: Floats, confidence: float) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
