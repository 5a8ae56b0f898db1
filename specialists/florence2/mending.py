"""Texts that others wrote, with words exchanged where a Florence-2 sees another thing than they tell of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.blacklist import lemma
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.overlap import Floats
from specialists.florence2.contradicting import mentions
from specialists.florence2.describing import DESCRIPTION, places_of, said_of
from specialists.florence2.exchanging import Text, with_exchanges
from specialists.florence2.grammar import clean_label
from specialists.florence2.likelihood_questions import CAPTIONS
from specialists.florence2.linking import linked_boxes
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import chosen
from specialists.florence2.spans import Span
from specialists.florence2.weighing import Contradiction, weighed
from specialists.said import Statement, statements

if TYPE_CHECKING:
    import torch

VERSION = 3

_SAME_PLACE = 0.8
"""IoU from which two boxes are asked about once. Our choice: of a thing, two labellers' boxes differ by as much."""


class Mended:
    """For each text of `sources` that something in the image contradicts, the same text with words exchanged.

    A caption with one wrong attribute is mostly right. To write it anew a small student must see everything right
    that the caption tells; to mend it, one thing. So the model is asked to describe what stands at the sources' boxes,
    and each mention of a thing in a text is held against the descriptions of its kind (`contradicting`). An exchange is
    worth how much likelier it makes both (`weighing`): the description of the place with the new word rather than the old,
    and the text. Exchanges worth a factor of `gain` or more are made; a text without one has no row.

    The texts have the granularity of the one that they mend. Their score in 0..1 is how probable the weakest of their
    exchanges makes them rather than the text as it was. `tasks` are caption prompts: texts of other granularities
    are not looked at. `max_prompts_per_batch` bounds memory. Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        sources: list[str],
        tasks: list[str] | None = None,
        gain: float = 50.0,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_prompts_per_batch: int = 32,
    ) -> None:
        known = list(CAPTIONS.values())
        asked = {task.name: task for task in chosen(known if tasks is None else tasks)}
        for name in asked:
            if name not in known:
                raise RecipeError(f"{name} writes no caption", f"choose among {', '.join(known)}")
        if not isinstance(sources, list) or not sources:
            raise RecipeError("Mended needs a list of sources", "name those whose texts it mends")
        if not gain >= 1 or max_prompts_per_batch < 1:
            raise RecipeError(
                "gain and max_prompts_per_batch must be at least 1", "correct the recipe's `args`"
            )
        self.tasks = {kind: asked[name] for kind, name in CAPTIONS.items() if name in asked}
        self.sources = frozenset(sources)
        self.gain = gain
        self.batch = max_prompts_per_batch
        self.model = Florence2Model(model, revision, device, dtype)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """The mended texts of each image. Raises SpecialistError when nobody's statements are given."""
        if said is None:
            raise SpecialistError("Mended has no texts to mend", "name its sources under `needs`")
        given = statements(said, self.sources)
        pages = [self._page(given.get(image.image_id, [])) for image in images]
        used = [number for number, page in enumerate(pages) if page.texts and len(page.places)]
        made: list[list[Annotation]] = [[] for _ in images]
        if used:
            features = self.model.features([images[number].pixels for number in used], self.batch)
            some = [(images[number], pages[number]) for number in used]
            for number, rows in zip(used, self._mended(features, some), strict=True):
                made[number] += rows
        return made

    def _page(self, known: Sequence[Statement]) -> _Page:
        """What of one image's statements is to be mended, and by which places."""
        texts: list[tuple[str, str, list[tuple[Span, range]]]] = []
        boxes = np.zeros((0, 4))
        for text in known:
            words = clean_label(text.text or "") if text.describes else ""
            if words and text.granularity in self.tasks:
                links: list[tuple[Span, range]] = []
                for span, own in linked_boxes(words, text, known):
                    links.append((span, range(len(boxes), len(boxes) + len(own))))
                    boxes = np.concatenate([boxes, own])
                texts.append((text.granularity or "", words, links))
        nouns = {lemma(word) for _, words, _ in texts for word in words.split()}
        things = [s for s in known if s.kind == "region" and s.parent is None and not s.masked]
        named = [s.box for s in things if s.box and lemma((s.text or "").rpartition(" ")[2]) in nouns]
        boxes = np.concatenate([boxes, np.array(named, np.float64).reshape(-1, 4)])
        first = places_of(boxes, _SAME_PLACE)
        places = {box: place for place, box in enumerate(sorted(set(first)))}
        told = [
            _Told(granularity, words, [(span, [places[first[box]] for box in own]) for span, own in links])
            for granularity, words, links in texts
        ]
        return _Page(told, boxes[list(places)])

    def _mended(self, features: torch.Tensor, pages: Sequence[tuple[Image, _Page]]) -> list[list[Annotation]]:
        """The texts of each page in which something is exchanged."""
        asked = [
            (n, box, (image.width, image.height))
            for n, (image, page) in enumerate(pages)
            for box in page.places.tolist()
        ]
        seen = [one.text for one in said_of(self.model, features, DESCRIPTION, asked, self.batch)]
        texts: list[Text] = []
        granularities: list[str] = []
        contradictions: list[Contradiction] = []
        for n, (_, page) in enumerate(pages):
            there, seen = seen[: len(page.places)], seen[len(page.places) :]
            descriptions = [place.words for place in there]
            for told in page.texts:
                contradictions += [
                    Contradiction(len(texts), claim, tuple(there[i] for i in claim.places))
                    for mention in mentions(told.words, told.links, descriptions)
                    for claim in mention.claims
                ]
                granularities.append(told.granularity)
                texts.append(Text(n, tuple(self.model.prompt_ids(self.tasks[told.granularity])), told.words))
        made: list[list[Annotation]] = [[] for _ in pages]
        for i, some in weighed(self.model, features, texts, contradictions, self.gain, self.batch).items():
            words = with_exchanges(texts[i].words, [one.exchange for one in some])
            score = _probability(min(one.worth for one in some))
            made[texts[i].image].append(Annotation("text", words, granularities[i], score=score))
        return made


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """A text, and its phrases with the numbers of the places that they point at."""

    granularity: str
    words: str
    links: list[tuple[Span, list[int]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Page:
    """One image's texts, and the boxes (n, 4) of its places."""

    texts: list[_Told]
    places: Floats


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
