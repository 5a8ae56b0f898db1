"""Things that the phrases of texts point at, where a Florence-2 that is asked about the place calls them the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.blacklist import lemma
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.overlap import Floats, iou
from specialists.florence2.describing import DESCRIPTION, Said, places_of, said_of
from specialists.florence2.linking import links
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import TASKS, Task
from specialists.said import Statement, statements

VERSION = 1

_NAME = TASKS["REGION_TO_CATEGORY"]

_SAME_PLACE = 0.5
"""IoU from which the boxes of phrases with one noun are one thing's: what detections are matched with everywhere."""

_CLOSE_BY = 0.1
"""IoU from which two groups of boxes with one noun cannot both be trusted: that of `Merge`'s `near_iou`."""


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
        things = [_things(given.get(image.image_id, [])) for image in images]
        used = [number for number, some in enumerate(things) if some]
        made: list[list[Annotation]] = [[] for _ in images]
        if not used:
            return made
        features = self.model.features([images[number].pixels for number in used], self.batch)
        sizes = [(images[number].width, images[number].height) for number in used]
        asked = [(place, thing) for place, number in enumerate(used) for thing in things[number]]
        boxes = [(place, thing.box, sizes[place]) for place, thing in asked]
        named = said_of(self.model, features, _NAME, boxes, self.batch)
        sure = [
            (place, thing, name)
            for (place, thing), name in zip(asked, named, strict=True)
            if name.text.words and f" {thing.phrase}".endswith(f" {lemma(name.text.words)}")
        ]
        boxes = [(place, thing.box, sizes[place]) for place, thing, _ in sure]
        seen = said_of(self.model, features, DESCRIPTION, boxes, self.batch)
        described: dict[int, list[Annotation]] = {}
        for (place, thing, name), said_there in zip(sure, seen, strict=True):
            region = _row(_NAME, name, thing)
            made[used[place]].append(region)
            if said_there.text.words:
                row = _row(DESCRIPTION, said_there, thing)
                row.parent = region
                described.setdefault(used[place], []).append(row)
        for number, rows in described.items():
            made[number] += [*rows, *links(given[images[number].image_id], rows)]
        return made


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


def _row(task: Task, said: Said, thing: _Thing) -> Annotation:
    return Annotation(task.kind, said.text.words, task.granularity, box=thing.box, score=said.score)


def _places(boxes: Floats) -> list[tuple[tuple[float, ...], list[int]]]:
    """Boxes (n, 4) that overlap as one, the median of each group, with the numbers of its members.

    A smaller group close by a larger one is out of place, and left out.
    """
    groups: dict[int, list[int]] = {}
    for number, first in enumerate(places_of(boxes, _SAME_PLACE)):
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
