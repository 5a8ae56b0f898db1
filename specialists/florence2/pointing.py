"""Things that the phrases of texts point at, where a Florence-2 that is asked about the place calls them the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.blacklist import lemma
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.overlap import Floats, iou
from specialists.florence2.grammar import clean_label, parse
from specialists.florence2.linking import links
from specialists.florence2.locations import written
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import TASKS, Task
from specialists.said import Statement, statements

if TYPE_CHECKING:
    import torch

VERSION = 1

_NAME, _DESCRIPTION = TASKS["REGION_TO_CATEGORY"], TASKS["REGION_TO_DESCRIPTION"]

_SAME_PLACE = 0.5
"""IoU from which the boxes of phrases with one noun are one thing's: what detections are matched with everywhere."""

_CLOSE_BY = 0.1
"""IoU from which two groups of boxes with one noun cannot both be trusted: that of `Merge`'s `near_iou`."""

_LONGEST = 32
"""Tokens of a name or description, at most."""


class Pointed:
    """Regions at the boxes of the phrases of `sources`, each with a name that the model gives the place and a phrase
    confirms; and phrases of the texts at the regions that they fit.

    A model that lists what it sees overlooks more than one that is shown a place, and texts show places. Phrases with one
    noun whose boxes overlap (IoU 0.5 or more) point at one thing, at the median of their boxes. Asked for the category
    of that place, the model must answer with the noun (of "two red traffic lights": light, or traffic light). The score in
    0..1 is how probable it finds its answer, and its description of the place hangs on the region. Where a text mentions
    a thing (`contradicting.mentions`), a phrase of it is at the region whose description has all words of the mention.
    `max_prompts_per_batch` bounds memory. Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        sources: list[str],
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_prompts_per_batch: int = 32,
    ) -> None:
        if not isinstance(sources, list) or not sources:
            raise RecipeError("Pointed needs a list of sources", "name those whose phrases point at things")
        if max_prompts_per_batch < 1:
            raise RecipeError("max_prompts_per_batch must be at least 1", "correct the recipe's `args`")
        self.sources = frozenset(sources)
        self.batch = max_prompts_per_batch
        self.model = Florence2Model(model, revision, device, dtype)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """The regions of each image. Raises SpecialistError when nobody's statements are given."""
        if said is None:
            raise SpecialistError("Pointed has no phrases", "name its sources under `needs`")
        given = statements(said, self.sources)
        asked = [
            (number, thing)
            for number, image in enumerate(images)
            for thing in _things(given.get(image.image_id, []))
        ]
        used = sorted({number for number, _ in asked})
        made: list[list[Annotation]] = [[] for _ in images]
        if not used:
            return made
        pixels = self.model.features([images[number].pixels for number in used], self.batch)
        features = dict(zip(used, pixels, strict=True))
        regions: list[tuple[int, Annotation]] = []
        for (number, thing), row in zip(asked, self._answers(_NAME, images, features, asked), strict=True):
            if row is not None and f" {thing.phrase}".endswith(f" {lemma(row.text or '')}"):
                made[number].append(row)
                regions.append((number, row))
        places = [(number, _Thing("", tuple(row.box or ()))) for number, row in regions]
        described: dict[int, list[Annotation]] = {}
        for (number, region), row in zip(
            regions, self._answers(_DESCRIPTION, images, features, places), strict=True
        ):
            if row is not None:
                row.parent = region
                described.setdefault(number, []).append(row)
        for number, things in described.items():
            made[number] += [*things, *links(given[images[number].image_id], things)]
        return made

    def _answers(
        self,
        task: Task,
        images: Sequence[Image],
        features: Mapping[int, torch.Tensor],
        asked: Sequence[tuple[int, _Thing]],
    ) -> list[Annotation | None]:
        """What the model says of each place, in their order; None where it says nothing."""
        sizes = [(images[number].width, images[number].height) for number, _ in asked]
        prompts = [
            self.model.prompt_ids(task, written(thing.box, size))
            for (_, thing), size in zip(asked, sizes, strict=True)
        ]
        answers = self.model.answers(
            [features[number] for number, _ in asked], prompts, 1, _LONGEST, 0, self.batch
        )
        rows: list[Annotation | None] = []
        for (_, thing), size, answer in zip(asked, sizes, answers, strict=True):
            found = parse(answer.ids, task.grammar, self.model.vocabulary, size, answer.truncated)[:1]
            words = clean_label(found[0].label) if found else ""
            score = answer.score_of(found[0]) if words else None
            rows.append(
                Annotation(task.kind, words, task.granularity, box=thing.box, score=score) if words else None
            )
        return rows


class _Thing(NamedTuple):
    """What a phrase calls it, in the singular, and its box in pixels."""

    phrase: str
    box: tuple[float, ...]


def _things(known: Sequence[Statement]) -> list[_Thing]:
    """What the phrases of one image point at."""
    by_noun: dict[str, list[_Thing]] = {}
    for statement in known:
        phrase = lemma(statement.text or "")
        if statement.kind == "phrase" and statement.box is not None and not statement.masked and phrase:
            by_noun.setdefault(phrase.rpartition(" ")[2], []).append(_Thing(phrase, statement.box))
    found: list[_Thing] = []
    for some in by_noun.values():
        boxes = np.array([thing.box for thing in some], np.float64)
        found += [_Thing(some[members[0]].phrase, box) for box, members in _places(boxes)]
    return found


def _places(boxes: Floats) -> list[tuple[tuple[float, ...], list[int]]]:
    """Boxes (n, 4) that overlap as one, the median of each group, with the numbers of its members.

    A smaller group close by a larger one is out of place, and left out.
    """
    overlap = iou(boxes, boxes)
    groups: dict[int, list[int]] = {}
    for number in range(len(boxes)):
        first = next((first for first in groups if overlap[first, number] >= _SAME_PLACE), number)
        groups.setdefault(first, []).append(number)
    members = sorted(groups.values(), key=len, reverse=True)
    places = np.array([np.median(boxes[group], axis=0) for group in members])
    sizes = np.array([len(group) for group in members])
    close_by = iou(places, places) >= _CLOSE_BY
    beaten = np.any(close_by & (sizes[None] > sizes[:, None]), axis=1)
    return [
        (tuple(place), group)
        for place, group, out in zip(places.tolist(), members, beaten.tolist(), strict=True)
        if not out
    ]
