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
from specialists.florence2.contradicting import mentions
from specialists.florence2.describing import described, places_of
from specialists.florence2.exchanging import Text, with_exchanges
from specialists.florence2.grammar import clean_label
from specialists.florence2.likelihood_questions import CAPTIONS
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import chosen
from specialists.florence2.spans import Span, phrase_spans
from specialists.florence2.weighing import Contradiction, weighed
from specialists.said import Statement, statements

if TYPE_CHECKING:
    import torch

VERSION = 3


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
        used = [number for number, page in enumerate(pages) if page.texts and len(page.boxes)]
        made: list[list[Annotation]] = [[] for _ in images]
        if not used:
            return made
        features = self.model.features([images[number].pixels for number in used], self.batch)
        found = self._mended(
            features, [pages[number] for number in used], [images[number] for number in used]
        )
        for place, granularity, words, score in found:
            made[used[place]].append(Annotation("text", words, granularity, score=score))
        return made

    def _page(self, known: Sequence[Statement]) -> _Page:
        """What of one image's statements is to be mended, and by which places."""
        texts: list[_Told] = []
        boxes: list[Sequence[float]] = []
        for statement in known:
            words = clean_label(statement.text or "") if statement.describes else ""
            if words and statement.granularity in self.tasks:
                own = [s for s in known if s.kind == "phrase" and s.parent == statement.reference]
                own = [s for s in own if s.box is not None and not s.masked]
                phrases = list(dict.fromkeys(clean_label(s.text or "") for s in own))
                links: list[tuple[Span, list[int]]] = []
                for phrase, span in zip(phrases, phrase_spans(words, phrases), strict=True):
                    at = [s.box for s in own if s.box is not None and clean_label(s.text or "") == phrase]
                    if span is not None:
                        links.append((span, list(range(len(boxes), len(boxes) + len(at)))))
                        boxes += at
                texts.append(_Told(statement.granularity or "", words, links))
        nouns = {lemma(word) for told in texts for word in told.words.split()}
        boxes += [
            s.box
            for s in known
            if s.kind == "region" and s.parent is None and s.box is not None and not s.masked
            and lemma((s.text or "").rpartition(" ")[2]) in nouns
        ]  # fmt: skip
        return _Page(texts, np.array(boxes, np.float64).reshape(-1, 4))

    def _mended(
        self, features: torch.Tensor, pages: Sequence[_Page], images: Sequence[Image]
    ) -> list[tuple[int, str, str, float]]:
        """Of the texts in which something is exchanged: page, granularity, words and score."""
        first = [places_of(page.boxes) for page in pages]
        asked = [(n, place) for n, places in enumerate(first) for place in sorted(set(places))]
        sizes = [(image.width, image.height) for image in images]
        seen = described(
            self.model,
            features,
            [(n, pages[n].boxes[place].tolist(), sizes[n]) for n, place in asked],
            self.batch,
        )
        by_place = dict(zip(asked, seen, strict=True))
        texts: list[Text] = []
        granularities: list[str] = []
        contradictions: list[Contradiction] = []
        for n, page in enumerate(pages):
            numbers = {place: number for number, place in enumerate(sorted(set(first[n])))}
            there = [by_place[n, place] for place in numbers]
            words = [place.words for place in there]
            for told in page.texts:
                links = [(span, [numbers[first[n][box]] for box in boxes]) for span, boxes in told.links]
                contradictions += [
                    Contradiction(len(texts), claim, tuple(there[i] for i in claim.places))
                    for mention in mentions(told.words, links, words)
                    for claim in mention.claims
                ]
                granularities.append(told.granularity)
                prompt = tuple(self.model.prompt_ids(self.tasks[told.granularity]))
                texts.append(Text(n, prompt, told.words))
        found = weighed(self.model, features, texts, contradictions, self.gain, self.batch)
        return [
            (
                texts[i].image,
                granularities[i],
                with_exchanges(texts[i].words, [one.exchange for one in some]),
                _probability(min(one.worth for one in some)),
            )
            for i, some in found.items()
        ]


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """A text, and its phrases with the numbers of their boxes on the page."""

    granularity: str
    words: str
    links: list[tuple[Span, list[int]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Page:
    texts: list[_Told]
    boxes: np.ndarray


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds))
