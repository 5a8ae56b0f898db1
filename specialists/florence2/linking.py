"""Phrases of texts, at the things whose descriptions have all words of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data_engine.annotation import Annotation
from data_engine.overlap import Floats, iou
from specialists.florence2.contradicting import mentions
from specialists.florence2.spans import Span, phrase_spans
from specialists.said import Statement

Box = tuple[float, float, float, float]

_SAME_PLACE = 0.5
"""IoU from which a phrase's box is a thing's: what detections are matched with everywhere."""


def links(known: Sequence[Statement], described: Sequence[Annotation]) -> Iterator[Annotation]:
    """The phrases of one image's texts at boxes of these descriptions, with their scores.

    `known` are the image's statements. A singular that several things fit stands for those of them that it is linked to,
    and without such a link for none.
    """
    words = [row.text or "" for row in described]
    boxes = np.array([row.box for row in described], np.float64).reshape(-1, 4)
    for text in known:
        if not text.describes or text.text is None:
            continue
        linked = _linked(text, known, boxes)
        at = dict(linked)
        for mention in mentions(text.text, linked, words):
            here = mention.fitting
            if len(here) > 1 and not mention.many:
                here = tuple(number for number in here if number in at.get(mention.span, ()))
            for number in here:
                thing = described[number]
                phrase = text.text[slice(*mention.span)]
                yield Annotation(
                    "phrase", phrase, None, text.reference, mention.span, thing.box, score=thing.score
                )


def linked_boxes(words: str, text: Statement, known: Sequence[Statement]) -> list[tuple[Span, Floats]]:
    """The phrases of a text, in its wording `words`, with their boxes (n, 4)."""
    own = [s for s in known if s.kind == "phrase" and s.parent == text.reference]
    by_phrase: dict[str, list[Box]] = {}
    for phrase in own:
        if phrase.box is not None and not phrase.masked and phrase.text:
            by_phrase.setdefault(phrase.text, []).append(phrase.box)
    spans = phrase_spans(words, list(by_phrase))
    return [
        (span, np.array(boxes, np.float64))
        for span, boxes in zip(spans, by_phrase.values(), strict=True)
        if span is not None
    ]


def _linked(text: Statement, known: Sequence[Statement], boxes: Floats) -> list[tuple[Span, tuple[int, ...]]]:
    """The phrases of a text that have a box, and the things at their boxes."""
    return [
        (span, tuple(np.flatnonzero((iou(own, boxes) >= _SAME_PLACE).any(axis=0)).tolist()))
        for span, own in linked_boxes(text.text or "", text, known)
    ]
