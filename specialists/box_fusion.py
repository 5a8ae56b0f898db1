"""Two ways to make one set of boxes of several detectors' boxes of one class in one image.

`weighted` is weighted boxes fusion (Solovyev, Wang and Gabruseva, "Weighted boxes fusion: Ensembling boxes
from different object detection models", arXiv 1910.13302, section 3). `agreement` keeps what two models
have, after the pipeline of GranD (Rasheed et al., "GLaMM: Pixel Grounding Large Multimodal Model",
arXiv 2311.03356; thresholds and grouping as in GranD/utils/prepare_level_1.py of the authors' code).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_engine.overlap import Floats, iou

Ints = NDArray[np.int64]

_LEAST = 1e-6
"""A box of score 0 still has a place: without this, a cluster of such boxes would have no mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """`boxes` (k, 4) and `scores` (k,) are what was made; `of` (n,) is which of them each box went into, or -1."""

    boxes: Floats
    scores: Floats
    of: Ints


def strongest_first(boxes: Floats, strengths: Floats) -> Ints:
    """The order of boxes by falling strength; equal ones by their coordinates, not by whose they are."""
    return np.lexsort((*boxes.T[::-1], -strengths))


def weighted(boxes: Floats, scores: Floats, sources: Ints, weights: Floats, threshold: float) -> Clusters:
    """Weighted boxes fusion of `boxes` (n, 4) with `scores` (n,) in 0..1; `sources` (n,) index `weights`.

    The strongest box first (score times weight), each joins the cluster whose fused box it overlaps most,
    at an IoU above `threshold`, or founds one. A cluster's box is the mean of its members' coordinates,
    weighted by strength. Its score is the mean over all sources, weighted by them, of the best score that
    each gives it, 0 where a source has no box in it.

    The paper takes the mean over boxes, times min(T, N) / N for T boxes of N models. The two are equal
    where weights are and no source has two boxes in a cluster. Where one has, two boxes of one detector
    are no agreement here, and its weak duplicates (detectors without suppression make many) do not pull
    down what it is sure of.
    """
    strengths = np.maximum(scores * weights[sources], _LEAST)
    fused, sums, totals = np.empty((len(boxes), 4)), np.zeros((len(boxes), 4)), np.zeros(len(boxes))
    of = np.full(len(boxes), -1, np.int64)
    count = 0
    for i in strongest_first(boxes, strengths).tolist():
        place = count
        if count:
            overlaps = iou(boxes[i : i + 1], fused[:count])[0]
            best = int(overlaps.argmax())
            if overlaps[best] > threshold:
                place = best
        of[i] = place
        sums[place] += strengths[i] * boxes[i]
        totals[place] += strengths[i]
        if place == count:
            fused[place] = boxes[i]
            count += 1
        else:
            fused[place] = sums[place] / totals[place]
    best_of = np.zeros((count, len(weights)))
    np.maximum.at(best_of, (of, sources), scores)
    return Clusters(fused[:count], best_of @ weights / weights.sum(), of)


def agreement(
    boxes: Floats, scores: Floats, strengths: Floats, architectures: Ints, threshold: float
) -> Clusters:
    """The boxes (n, 4) that two architectures have: those that another's overlaps at IoU `threshold` or more.

    The strongest box first, each takes all such boxes of other architectures that none has taken yet,
    and stands for them with its own coordinates and score. So of any two boxes that agree at least one
    is in a cluster. A box that nobody else has is in none.
    """
    free = np.ones(len(boxes), bool)
    of = np.full(len(boxes), -1, np.int64)
    founders: list[int] = []
    for i in strongest_first(boxes, strengths).tolist():
        if not free[i]:
            continue
        others = np.flatnonzero(free & (architectures != architectures[i]))
        others = others[iou(boxes[i : i + 1], boxes[others])[0] >= threshold]
        if len(others):
            free[i] = free[others] = False
            of[i] = of[others] = len(founders)
            founders.append(i)
    return Clusters(boxes[founders], scores[founders], of)
