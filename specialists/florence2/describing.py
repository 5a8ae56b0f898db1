"""What a Florence-2 says of places of images, when it is asked about each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_engine.overlap import iou
from specialists.florence2.exchanging import Text, log_probabilities
from specialists.florence2.grammar import clean_label, parse
from specialists.florence2.locations import written
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import TASKS, Task

if TYPE_CHECKING:
    import torch

    from data_engine.overlap import Floats

DESCRIPTION = TASKS["REGION_TO_DESCRIPTION"]

_LONGEST = 32
"""Tokens of a description or name, at most."""


class Said(NamedTuple):
    """What the model says of a place, empty where it says nothing, and how probable it finds that, in 0..1."""

    text: Text
    score: float


def places_of(boxes: Floats, least: float) -> list[int]:
    """For each box (n, 4) the number of the first one at its place: that overlaps it by an IoU of `least` or more, and is
    itself the first at its own."""
    near = iou(boxes, boxes) >= least
    first: list[int] = []
    for number in range(len(boxes)):
        earlier = [other for other in dict.fromkeys(first) if near[number, other]]
        first.append(earlier[0] if earlier else number)
    return first


def said_of(
    model: Florence2Model,
    features: torch.Tensor,
    task: Task,
    boxes: Sequence[tuple[int, Sequence[float], tuple[int, int]]],
    batch: int,
) -> list[Said]:
    """Of each (image, box, image's size as width and height) the answer to a `task` about regions, in their order."""
    prompts = [(image, tuple(model.prompt_ids(task, written(box, size)))) for image, box, size in boxes]
    answers = model.answers(
        [features[image] for image, _ in prompts], [prompt for _, prompt in prompts], 1, _LONGEST, 0, batch
    )
    made: list[Said] = []
    for (image, prompt), (_, _, size), answer in zip(prompts, boxes, answers, strict=True):
        found = parse(answer.ids, task.grammar, model.vocabulary, size, answer.truncated)[:1]
        words = clean_label(found[0].label) if found else ""
        made.append(Said(Text(image, prompt, words), answer.score_of(found[0]) if words else 0.0))
    return made


def seen_rather(
    model: Florence2Model,
    features: torch.Tensor,
    places: Sequence[Sequence[Text]],
    words: Sequence[tuple[str, str]],
    batch: int,
) -> list[tuple[float, float]]:
    """For each pair (old, new) of `words` and descriptions that have the new one: how likely they are with the old word
    in its place, and by how much likelier with the new one; logarithms, means over the descriptions.
    """
    pairs = [
        (place, place._replace(words=_with(place.words, new, old)))
        for some, (old, new) in zip(places, words, strict=True)
        for place in some
    ]
    asked = list(dict.fromkeys(text for pair in pairs for text in pair))
    known = dict(zip(asked, log_probabilities(model, features, asked, batch), strict=True))
    found: list[tuple[float, float]] = []
    start = 0
    for some in places:
        own = [(known[with_old], known[with_new]) for with_new, with_old in pairs[start : start + len(some)]]
        start += len(some)
        old, new = np.mean(own, axis=0).tolist()
        found.append((old, new - old))
    return found


def _with(words: str, new: str, old: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(new)}(?!\w)", lambda _: old, words, count=1, flags=re.IGNORECASE)
