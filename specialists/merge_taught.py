"""Thresholds for the images that a student learnt from: those that part off the same share of the statements.

What it has learnt a student finds likelier, errors too: on the very images that it learnt from its likelihoods are
higher than on those that chose the thresholds. But both are drawn from the same images, so that the same share of
their statements is wrong; and what it has least belief in still comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from data_engine.overlap import Floats
from specialists.merge_examples import Examples, judged_texts, link_examples, region_examples
from specialists.merge_hanging import judged_hanging
from specialists.merge_rows import Page
from specialists.merge_settings import (
    ADD_ABOVE,
    DOUBT_LOCATED,
    DOUBT_NAMED,
    MOVE,
    RENAME,
    SHIFT,
    WEIGHT,
    MergeSettings,
)
from specialists.merge_texts import merge_texts

Values = dict[tuple[str, str], Floats]
"""By threshold and key the values that it decides about."""


def judged_values(pages: Iterable[Page], settings: MergeSettings) -> Values:
    """Of pages on which nothing is merged yet; no truth is looked at."""
    found: dict[tuple[str, str], list[float]] = {}
    boxes: dict[str, Examples] = {}
    for page in pages:
        for name, key, share, _, _ in judged_texts(page, settings):
            found.setdefault((name, key), []).append(share)
        for key, _, child in judged_hanging(page):
            found.setdefault((DOUBT_NAMED, key), []).append(child.likelihood.named)
        region_examples(page, [], settings, boxes)
        link_examples(page, merge_texts(page, settings), [], settings, boxes)
    for key, examples in boxes.items():
        columns = {
            ADD_ABOVE: [row[0] for row in examples.added],
            DOUBT_NAMED: [row[0] for row in examples.kept],
            DOUBT_LOCATED: [row[1] for row in examples.kept],
            RENAME: [row[0] for row in examples.renamed],
            SHIFT: [row[0] for row in examples.near],
            MOVE: examples.places,
        }
        for name, values in columns.items():
            found.setdefault((name, key), []).extend(values)
    arrays = {place: np.array(values, np.float64) for place, values in found.items()}
    return {place: np.sort(values[~np.isnan(values)]) for place, values in arrays.items()}


def taught_thresholds(
    chosen: Mapping[str, Mapping[str, float]], untaught: Values, taught: Values, least: int
) -> dict[str, dict[str, float]]:
    """Those of `chosen`, by name and key, that were found on `untaught`, for the images of `taught`.

    One of which fewer than `least` values are known on either side stays as it is, and so do weights.
    """
    made: dict[str, dict[str, float]] = {}
    for name, thresholds in chosen.items():
        for key, value in thresholds.items():
            sides = [side.get((name, key), np.zeros(0)) for side in (untaught, taught)]
            if name != WEIGHT and min(map(len, sides)) >= least:
                value = _same_share(value, *sides)
            made.setdefault(name, {})[key] = value
    return made


def _same_share(value: float, before: Floats, after: Floats) -> float:
    """The threshold below which the share of `after` lies that of `before` lies below `value`; both are sorted."""
    count = round(float((before < value).mean()) * len(after))
    if count == 0:
        return min(value, float(after[0]))
    if count == len(after):
        return max(value, float(np.nextafter(after[-1], np.inf)))
    return float((after[count - 1] + after[count]) / 2 if after[count - 1] < after[count] else after[count])
