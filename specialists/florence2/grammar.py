"""Reading what Florence-2 generated: token ids in, labelled shapes out.

The parser works on token ids, not on the decoded string, because a score is a mean over tokens and
because a word in a label can then never be mistaken for a token. It is total: any sequence of ids
gives a list, if an empty one, and never an error. What it reads:

    TEXT                         text
    BOXES                        (<loc> x4)*
    LABELLED_BOXES               (label (<loc> x4)+)*
    LABELLED_QUADS               (label <loc> x8)*
    POLYGONS                     instance, or (<poly> instance </poly>)+
    LABELLED_BOXES_OR_POLYGONS   (label (boxes | polygons))*
    instance                     polygon (<sep> polygon)*, a polygon being <loc> x2n, n >= 3

What does not fit is left out: a label without coordinates, coordinates without a label, a box with
three of its four coordinates, a polygon of two points. Where the model itself was cut off
(`truncated`) the polygon it was drawing is left out too, for its shape is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.locations import BINS, dequantise
from specialists.florence2.prompts import Grammar

TEXT, SKIP, SEP, OPEN, CLOSE = -1, -2, -3, -4, -5
_MARKS = {"<sep>": SEP, "<poly>": OPEN, "</poly>": CLOSE}

Shape = Literal["text", "box", "quad", "polygons"]
Points = NDArray[np.float64]


class Vocabulary:
    """What each token id means to the grammar: a bin, a mark, text, or nothing."""

    def __init__(self, tokenizer: Any) -> None:
        """From a Florence-2 tokenizer. Raises ValueError when it has no location tokens."""
        ids: dict[str, int] = tokenizer.get_vocab()
        self.meaning = np.full(max(ids.values(), default=0) + 1, TEXT, dtype=np.int64)
        special = set(tokenizer.all_special_tokens)
        for token, index in tokenizer.get_added_vocab().items():
            if token in special or (token.startswith("<") and token.endswith(">")):
                self.meaning[index] = SKIP
        for token in special:
            if token in ids:
                self.meaning[ids[token]] = SKIP
        for bin_ in range(BINS):
            index = ids.get(f"<loc_{bin_}>", -1)
            if index < 0:
                raise ValueError(f"the tokenizer has no <loc_{bin_}>")
            self.meaning[index] = bin_
        for token, mark in _MARKS.items():
            if token in ids:
                self.meaning[ids[token]] = mark
        self._decode: Callable[..., str] = tokenizer.decode

    def read(self, ids: Sequence[int]) -> list[int]:
        """One meaning per token; ids that the tokenizer does not know mean nothing."""
        tokens = np.asarray(ids, dtype=np.int64).reshape(-1)
        known = (tokens >= 0) & (tokens < len(self.meaning))
        read: list[int] = np.where(known, self.meaning[np.where(known, tokens, 0)], SKIP).tolist()
        return read

    def text(self, ids: Sequence[int]) -> str:
        return self._decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One thing that was read.

    `label` is empty where the grammar has none. `rings` are arrays (n, 2) of x, y in pixels: the two
    corners of a box, the four of a quad, one array per polygon. `label_tokens` and `location_tokens`
    are positions in the sequence that was read.
    """

    label: str
    label_tokens: tuple[int, ...]
    shape: Shape
    rings: tuple[Points, ...] = ()
    location_tokens: tuple[int, ...] = ()

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1: a box as it was written (it may be inverted), the extent of other shapes."""
        points = np.concatenate(self.rings)
        if self.shape == "box":
            (x0, y0), (x1, y1) = points.tolist()
        else:
            (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return x0, y0, x1, y1


def clean_label(text: str) -> str:
    """A label in one line and without `<`, which the released parsers cannot read back."""
    return " ".join(text.replace("<", " ").split())


def parse(
    ids: Sequence[int],
    grammar: Grammar,
    vocabulary: Vocabulary,
    size: tuple[int, int],
    truncated: bool = False,
) -> list[Found]:
    """Everything that `ids` say under `grammar`, in order. `size` is the image's (width, height)."""
    meaning = vocabulary.read(ids)
    if grammar is Grammar.TEXT:
        tokens = tuple(i for i, m in enumerate(meaning) if m == TEXT)
        text = vocabulary.text([ids[i] for i in tokens]).strip()
        return [Found(text, tokens, "text")] if text else []
    found: list[Found] = []
    for label_tokens, start, end in _groups(meaning):
        label = clean_label(vocabulary.text([ids[i] for i in label_tokens]))
        if grammar is Grammar.BOXES or grammar is Grammar.POLYGONS:
            label, label_tokens = "", ()
        elif not label:
            continue
        cut = truncated and end == len(meaning)
        for shape, rings in _shapes(meaning, start, end, grammar, cut):
            points = tuple(
                dequantise(np.array([meaning[i] for i in ring]).reshape(-1, 2), size) for ring in rings
            )
            found.append(Found(label, label_tokens, shape, points, tuple(i for ring in rings for i in ring)))
    return found


def _groups(meaning: list[int]) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Positions of a run of text, and the range of what follows it up to the next text."""
    label: list[int] = []
    start: int | None = None
    for i, m in enumerate(meaning):
        if m == TEXT:
            if start is not None:
                yield tuple(label), start, i
                label, start = [], None
            label.append(i)
        elif m != SKIP and start is None:
            start = i
    if start is not None:
        yield tuple(label), start, len(meaning)


def _shapes(
    meaning: list[int], start: int, end: int, grammar: Grammar, cut: bool
) -> Iterator[tuple[Shape, list[list[int]]]]:
    """Each shape between two positions, as the positions of its rings' location tokens."""
    marked = any(m in (OPEN, CLOSE, SEP) for m in meaning[start:end])
    if grammar is Grammar.POLYGONS or (grammar is Grammar.LABELLED_BOXES_OR_POLYGONS and marked):
        for polygons in _instances(meaning, start, end, cut):
            yield "polygons", polygons
    elif grammar is Grammar.LABELLED_QUADS:
        # A line of text stands in one place: further coordinates have lost their text.
        first = next(_runs(meaning, start, end), [])
        if len(first) >= 8:
            yield "quad", [first[:8]]
    else:
        for run in _runs(meaning, start, end):
            for i in range(0, len(run) - 3, 4):
                yield "box", [run[i : i + 4]]


def _runs(meaning: list[int], start: int, end: int) -> Iterator[list[int]]:
    """Positions of location tokens that follow one another; a mark ends a run."""
    run: list[int] = []
    for i in range(start, end):
        if meaning[i] >= 0:
            run.append(i)
        elif meaning[i] != SKIP and run:
            yield run
            run = []
    if run:
        yield run


def _instances(meaning: list[int], start: int, end: int, cut: bool) -> Iterator[list[list[int]]]:
    """The polygons of each instance, as positions. `cut`: what ends last was still being written."""
    last_token = max((i for i in range(start, end) if meaning[i] != SKIP), default=-1)
    marks = [i for i in range(start, end) if meaning[i] in (OPEN, CLOSE)]
    for first, last in zip([start, *(i + 1 for i in marks)], [*marks, end], strict=True):
        runs = list(_runs(meaning, first, last))
        if cut and runs and runs[-1][-1] == last_token:
            runs.pop()
        polygons = [run[: len(run) // 2 * 2] for run in runs if len(run) >= 6]
        if polygons:
            yield polygons
