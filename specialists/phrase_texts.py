"""The texts of images with their noun phrases, and the rows that say where the phrases are seen.

Every specialist that grounds phrases (grounding_dino, owl_grounding) begins and ends with this: it reads the
descriptions in `said`, asks its own model for each phrase's boxes, and says them of every statement that has
the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.image import Image
from specialists.noun_phrases import Phrase, noun_phrases
from specialists.said import Statement

Boxes = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Boxes (n, 4) as x0, y0, x1, y1 in pixels, and their scores (n,), falling."""

_NOTHING: Boxes = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(slots=True, eq=False)
class PhraseText:
    """A text of an image, the statements that say it, its phrases, and the boxes of each phrase.

    `image` is the image's place in the batch. `boxes` is for a model to fill; a phrase that it lacks has none.
    """

    image: int
    about: list[Statement]
    phrases: list[Phrase]
    boxes: dict[str, Boxes] = field(default_factory=dict)


def phrase_texts(images: Sequence[Image], said: dict[str, list[Statement]]) -> list[PhraseText]:
    """The descriptions of each image, each wording once, with its noun phrases."""
    found: list[PhraseText] = []
    for i, image in enumerate(images):
        by_wording: dict[str, PhraseText] = {}
        for statement in said.get(image.image_id, []):
            if statement.describes and statement.text is not None:
                by_wording.setdefault(statement.text, PhraseText(i, [], [])).about.append(statement)
        found += by_wording.values()
    for text, phrases in zip(found, noun_phrases([t.about[0].text or "" for t in found]), strict=True):
        text.phrases = phrases
    return found


def phrase_rows(images: Sequence[Image], texts: Sequence[PhraseText]) -> list[list[Annotation]]:
    """For each image one row per phrase and box: texts and phrases in their order, boxes by falling score."""
    made: list[list[Annotation]] = [[] for _ in images]
    for text in texts:
        for statement in text.about:
            made[text.image] += _rows(text, statement)
    return made


def _rows(text: PhraseText, statement: Statement) -> Iterator[Annotation]:
    for phrase, start, end in text.phrases:
        boxes, scores = text.boxes.get(phrase, _NOTHING)
        for box, score in zip(boxes.tolist(), scores.tolist(), strict=True):
            yield Annotation(
                "phrase", phrase, parent=statement.reference, span=(start, end), box=box, score=score
            )
