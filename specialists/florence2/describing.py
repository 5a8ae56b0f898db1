"""What a Florence-2 says of places of images, when it is asked to describe each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_engine.overlap import iou
from specialists.florence2.exchanging import Text, log_probabilities
from specialists.florence2.grammar import clean_label, parse
from specialists.florence2.locations import written
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import TASKS

if TYPE_CHECKING:
    import torch

    from data_engine.overlap import Floats

_TASK = TASKS["REGION_TO_DESCRIPTION"]

_SAME_PLACE = 0.8
"""IoU from which two boxes are asked about once. Our choice: of a thing, two labellers' boxes differ by as much."""

_LONGEST = 32
"""Tokens of a description, at most."""


def places_of(boxes: Floats) -> list[int]:
    """For each box (n, 4) the number of the first one that is at its place."""
    near = iou(boxes, boxes) >= _SAME_PLACE
    first: list[int] = []
    for number in range(len(boxes)):
        earlier = [other for other in dict.fromkeys(first) if near[number, other]]
        first.append(earlier[0] if earlier else number)
    return first


def described(
    model: Florence2Model,
    features: torch.Tensor,
    boxes: Sequence[tuple[int, Sequence[float], tuple[int, int]]],
    batch: int,
) -> list[Text]:
    """Of each (image, box, image's size as width and height) what the model says of it, in their order."""
    prompts = [(image, tuple(model.prompt_ids(_TASK, written(box, size)))) for image, box, size in boxes]
    answers = model.answers(
        [features[image] for image, _ in prompts], [prompt for _, prompt in prompts], 1, _LONGEST, 0, batch
    )
    found: list[Text] = []
    for (image, prompt), (_, _, size), answer in zip(prompts, boxes, answers, strict=True):
        said = parse(answer.ids, _TASK.grammar, model.vocabulary, size)
        found.append(Text(image, prompt, clean_label(said[0].label) if said else ""))
    return found


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
