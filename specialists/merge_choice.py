"""Which thresholds stand for each kind of statement, of those that could: the ones a whole merge is worth most by.

A threshold of which there were too few examples has its default, which is too bold for the words of a poor student. So
the originals as they are compete too: what they are worth is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from specialists.merge_measure import HeldOut, measure
from specialists.merge_settings import DEFAULTS, OF_TEXTS, UNCHANGED, MergeSettings, Thresholds
from specialists.merge_truth import Worth

Chosen = dict[str, dict[str, float]]
"""Thresholds by name and key."""


def best_by_key(
    found: Mapping[str, Mapping[str, float]], images: Sequence[HeldOut], settings: MergeSettings, worth: Worth
) -> tuple[Chosen, dict[str, float]]:
    """Of each key the best of: what was found, with defaults for the rest; defaults alone; what was found, with
    `UNCHANGED` for the rest; `UNCHANGED` alone. Of equally good ones the first. Each key's is chosen by itself.

    Also returns what a merge by defaults alone is worth, by key. A key whose worth cannot be measured keeps what was
    found.
    """
    keys = set(measure(images, settings, worth, merged=False)) | {key for of in found.values() for key in of}
    unchanged = {key: _unchanged(key) for key in keys}
    own = {key: {name: of[key] for name, of in found.items() if key in of} for key in keys}
    options: list[dict[str, dict[str, float]]] = [
        own,
        {key: {} for key in keys},
        {key: unchanged[key] | own[key] for key in keys},
        unchanged,
    ]
    worths = [measure(images, replace(settings, thresholds=Thresholds(_by_name(o))), worth) for o in options]
    best = {
        key: max(range(len(options)), key=lambda i: (worths[i].get(key, 0.0), -i)) if key in worths[0] else 0
        for key in keys
    }
    return _by_name({key: options[best[key]][key] for key in sorted(keys)}), worths[1]


def _unchanged(key: str) -> dict[str, float]:
    texts = key.split("/")[0] == "text"
    return {name: UNCHANGED[name] for name in DEFAULTS if (name in OF_TEXTS) == texts}


def _by_name(by_key: Mapping[str, Mapping[str, float]]) -> Chosen:
    found: Chosen = {}
    for key, values in by_key.items():
        for name, value in values.items():
            found.setdefault(name, {})[key] = value
    return found
