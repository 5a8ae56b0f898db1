"""Merged statements and their candidates held against truth: which are right, and what a set of them is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_engine.blacklist import plain_phrase
from data_engine.class_names import ClassNames
from data_engine.overlap import Floats, iou
from data_engine.quality.text import normalised
from specialists.merge_matching import Bools, matched
from specialists.merge_rows import Box, Row
from specialists.merge_settings import key_of

IOU = 0.5
"""From which a box is right, as in COCO's and Pascal's figures of one threshold."""


class Worth(Protocol):
    """What a text about an image is worth, in 0..1, by truth's texts of its granularity and truth's descriptions."""

    def __call__(self, text: str, texts: Sequence[str], descriptions: Sequence[str]) -> float: ...


@dataclass(slots=True, eq=False)
class Counts:
    """Statements of one key: how many there are, how many are right, how many there should be."""

    said: float = 0
    right: float = 0
    truths: float = 0

    @property
    def f1(self) -> float:
        total = self.said + self.truths
        return 2 * self.right / total if total else 0.0


def things_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Truth's regions and phrases with a box, and texts, by key."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.is_thing or row.is_link or row.is_text:
            found.setdefault(key_of(row.kind, row.granularity), []).append(row)
    return found


def same_words(a: str, b: str) -> bool:
    """Whether two phrases name one thing: alike but for determiners, or one the end of the other."""
    one, other = plain_phrase(a), plain_phrase(b)
    return one == other or one.endswith(f" {other}") or other.endswith(f" {one}")


def alike(kind: str, a: Sequence[str], b: Sequence[str], names: ClassNames) -> Bools:
    """(n, m): whether words mean the same thing."""
    if kind == "phrase":
        return np.array([[same_words(x, y) for y in b] for x in a], bool).reshape(len(a), len(b))
    ours, theirs = (np.array([names.key(text) for text in side], object) for side in (a, b))
    return np.asarray(ours[:, None] == theirs[None], bool)


def best_truths(
    kind: str, texts: Sequence[str], boxes: Floats, truth: Sequence[Row], names: ClassNames
) -> NDArray[np.int64]:
    """Of each statement the truth of its words that it overlaps most, or -1 below `IOU`."""
    if not truth or not len(boxes):
        return np.full(len(boxes), -1, np.int64)
    fits = alike(kind, texts, [row.text or "" for row in truth], names)
    overlap = np.where(fits, iou(boxes, _boxes(row.box for row in truth)), 0.0)
    best = overlap.argmax(axis=1)
    return np.where(overlap[np.arange(len(boxes)), best] >= IOU, best, -1).astype(np.int64)


def matches(
    kind: str,
    texts: Sequence[str],
    boxes: Sequence[Sequence[float] | None],
    truth: Sequence[Row],
    names: ClassNames,
) -> int:
    """How many statements of one key in one image are right, each about a truth of its own."""
    fits = alike(kind, texts, [row.text or "" for row in truth], names)
    return len(matched(_boxes(boxes), _boxes(row.box for row in truth), fits, IOU))


def word_f1(text: str, texts: Sequence[str], descriptions: Sequence[str]) -> float:
    """The best F1 of words and of pairs of neighbouring words with one of truth's texts."""
    return max((_overlap(_grams(text), _grams(other)) for other in texts), default=0.0)


def judged_by(judge: Callable[[str, Sequence[str]], Sequence[bool]]) -> Worth:
    """The share of a text's noun phrases that `judge` finds true by truth's descriptions; 0 without any."""

    def worth(text: str, texts: Sequence[str], descriptions: Sequence[str]) -> float:
        verdicts = judge(text, descriptions)
        return float(np.mean(verdicts)) if len(verdicts) else 0.0

    return worth


def worth_of(key: str, worth: Worth) -> Worth:
    """What is read in an image has no noun phrases: its words are compared, whoever judges descriptions."""
    return word_f1 if key in ("text/ocr", "text/class") else worth


def _grams(text: str) -> Counter[str]:
    words = normalised(text).split()
    return Counter([*words, *(" ".join(pair) for pair in pairwise(words))])


def _overlap(a: Counter[str], b: Counter[str]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 0.0


def _boxes(boxes: Iterable[Box | Sequence[float] | None]) -> Floats:
    return np.array(list(boxes), np.float64).reshape(-1, 4)
