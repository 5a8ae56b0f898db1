"""Annotation rows of one image as what Florence-2 is trained on: a prompt and the answer to it, per task.

The reverse of `grammar.parse` and `rows.rows`: what is written here and read there gives the same labels
and, within a bin of `locations`, the same shapes. The order inside an answer is that of the released
models' own output: labels alphabetically with their boxes together, larger boxes first; proposals by
falling area; phrases as their text has them; lines of writing in reading order. Where a generator is given,
labels, boxes and outlines come in an order that it draws, as in Pix2Seq (arXiv 2109.10852); phrases and lines
have an order of their own and keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from specialists.florence2.grammar import clean_label
from specialists.florence2.locations import written
from specialists.florence2.outlines import outlines
from specialists.florence2.prompts import TASKS, prompt_text

Size = tuple[int, int]
Row = Annotation

_CAPTIONS = {"CAPTION": "brief", "DETAILED_CAPTION": "detailed", "MORE_DETAILED_CAPTION": "more_detailed"}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Example:
    """One training example. `said` fills the task's sentence; `answer` holds location tokens as text."""

    task: str
    said: str
    answer: str

    @property
    def prompt(self) -> str:
        """The sentence that is sent."""
        return TASKS[self.task].prompt(self.said)


def sequences(
    annotations: Sequence[Annotation],
    size: Size,
    tasks: Collection[str] = tuple(TASKS),
    shuffled: np.random.Generator | None = None,
) -> list[Example]:
    """Every example of `tasks` that the rows of one image support, in the order of `prompts.TASKS`.

    `size` is the image's (width, height). A row's parent that is no row of the list teaches nothing but what
    its children say of it. With `shuffled` the order inside an answer is drawn. A task without
    rows to learn it from gives none: OD takes regions `phrase`, dense captions regions `brief`, grounding
    a text's phrases, the two segmentation tasks masks. Regions that say and show the same count once.
    Masks need OpenCV: raises MissingPackageError where a task asks for outlines and it is not there.
    """
    image = _Rows(annotations, size, shuffled)
    return [
        Example(name, said, answer)
        for name in TASKS
        if name in tasks
        for said, answer in _WRITERS[name](image)
        if answer
    ]


def drawn_examples(
    annotations: Sequence[Annotation],
    size: Size,
    weights: Mapping[str, float],
    rng: np.random.Generator,
    shuffled: bool = False,
) -> Iterator[Example]:
    """One example of each task of `weights` that the rows support, tasks of more weight mostly earlier.

    Of a task's several examples shorter ones come more often, so that each prompt costs about as much.
    """
    tasks = list(weights)
    chances = np.array([weights[task] for task in tasks])
    order = rng.choice(tasks, size=len(tasks), replace=False, p=chances / chances.sum())
    for task in order.tolist():
        found = sequences(annotations, size, (task,), rng if shuffled else None)
        if not found:
            continue
        lengths = np.array([len(example.answer) + len(example.said) for example in found], dtype=float)
        yield found[int(rng.choice(len(found), p=(1 / lengths) / (1 / lengths).sum()))]


class _Rows:
    """The rows of one image, sorted by what they are."""

    def __init__(
        self, annotations: Sequence[Annotation], size: Size, shuffled: np.random.Generator | None = None
    ) -> None:
        self.size = size
        self.shuffled = shuffled
        self.texts: dict[str, list[Row]] = {}
        self.regions: dict[str, list[Row]] = {}
        self.masks: list[Row] = []
        self.phrases: dict[int, list[Row]] = {}
        """By the identity of their text."""
        self.grounded: dict[int, Row] = {}
        """The texts of phrases, by their identity."""
        for row in annotations:
            if row.mask is not None:
                self.masks.append(row)
            elif row.kind == "text" and row.text:
                self.texts.setdefault(row.granularity or "", []).append(row)
            elif row.kind == "region" and row.box is not None:
                self.regions.setdefault(row.granularity or "", []).append(row)
            elif row.kind == "phrase" and row.box is not None and isinstance(row.parent, Annotation):
                self.phrases.setdefault(id(row.parent), []).append(row)
                self.grounded.setdefault(id(row.parent), row.parent)

    def larger_first(self, rows: Iterable[Row]) -> list[Row]:
        """Rows by falling area, or in a drawn order."""
        ordered = sorted(rows, key=lambda row: (-_area(row), tuple(row.box or ())))
        return self.drawn(ordered)

    def drawn(self, items: list[_T]) -> list[_T]:
        """The items in a drawn order where one is wished, else as they are."""
        if self.shuffled is None:
            return items
        return [items[i] for i in self.shuffled.permutation(len(items))]

    def at(self, row: Row) -> str:
        """A row's box as location tokens."""
        return written(row.box or (), self.size)

    def labelled(self, granularity: str) -> list[tuple[str, Row]]:
        """Regions with a label, each label and place once."""
        found = [(clean_label(row.text or ""), row) for row in self.regions.get(granularity, ())]
        return _once(((label, row) for label, row in found if label), key=lambda f: (f[0], self.at(f[1])))


def _once(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[_T]:
    kept: dict[Hashable, _T] = {}
    for item in items:
        kept.setdefault(key(item), item)
    return list(kept.values())


def _area(row: Row) -> float:
    x0, y0, x1, y1 = row.box or (0, 0, 0, 0)
    return float((x1 - x0) * (y1 - y0))


def _boxes(image: _Rows, rows: Iterable[Row]) -> str:
    """Each box once, larger first."""
    return "".join(dict.fromkeys(image.at(row) for row in image.larger_first(rows)))


_Pairs = list[tuple[str, str]]


def _caption(granularity: str) -> Callable[[_Rows], _Pairs]:
    def write(image: _Rows) -> _Pairs:
        return [("", clean_label(row.text or "")) for row in image.texts.get(granularity, ())]

    return write


def _writing(image: _Rows) -> _Pairs:
    """All text of the image; its lines stay lines."""
    return [
        ("", "\n".join(filter(None, map(clean_label, (row.text or "").splitlines()))))
        for row in image.texts.get("ocr", ())
    ]


def _writing_with_regions(image: _Rows) -> _Pairs:
    lines = [
        (clean_label(row.text or ""), _corners(row))
        for row in image.regions.get("ocr", ())
        if clean_label(row.text or "")
    ]
    ordered = _reading_order(lines)
    return [("", "".join(label + written(corners.reshape(-1), image.size) for label, corners in ordered))]


def _corners(row: Row) -> NDArray[np.float64]:
    """(4, 2): the quad, or the box's corners clockwise from its top left."""
    if row.quad is not None:
        return np.array(row.quad, dtype=np.float64).reshape(4, 2)
    x0, y0, x1, y1 = row.box or (0, 0, 0, 0)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64)


def _reading_order(
    lines: Sequence[tuple[str, NDArray[np.float64]]],
) -> list[tuple[str, NDArray[np.float64]]]:
    """From the top down, and from the left among those whose middles differ by less than half a height."""
    ordered: list[tuple[str, NDArray[np.float64]]] = []
    row: list[tuple[str, NDArray[np.float64]]] = []
    for line in sorted(lines, key=lambda line: float(line[1][:, 1].mean())):
        height = float(np.ptp(line[1][:, 1]))
        if row and line[1][:, 1].mean() - row[0][1][:, 1].mean() > height / 2:
            ordered += sorted(row, key=lambda one: float(one[1][:, 0].mean()))
            row = []
        row.append(line)
    return ordered + sorted(row, key=lambda one: float(one[1][:, 0].mean()))


def _detection(granularity: str) -> Callable[[_Rows], _Pairs]:
    def write(image: _Rows) -> _Pairs:
        found = sorted(image.labelled(granularity), key=lambda f: f[0])
        told = [
            label + _boxes(image, (row for _, row in group))
            for label, group in groupby(found, key=lambda f: f[0])
        ]
        return [("", "".join(image.drawn(told)))]

    return write


def _proposals(image: _Rows) -> _Pairs:
    rows = [
        row for name in ("phrase", "brief", "noun_chunk", "proposal") for row in image.regions.get(name, ())
    ]
    return [("", _boxes(image, rows))]


def _open_vocabulary(image: _Rows) -> _Pairs:
    found = sorted(image.labelled("phrase"), key=lambda f: f[0])
    return [
        (prompt_text(label), label + _boxes(image, (row for _, row in group)))
        for label, group in groupby(found, key=lambda f: f[0])
    ]


def _grounding(image: _Rows) -> _Pairs:
    examples = []
    for granularity in _CAPTIONS.values():
        for key, text in image.grounded.items():
            if text.kind != "text" or text.granularity != granularity or not text.text:
                continue
            by_span: dict[tuple[int, int], list[Row]] = {}
            for row in image.phrases[key]:
                by_span.setdefault(row.span or (len(text.text), 0), []).append(row)
            answer = "".join(
                clean_label(rows[0].text or "") + _boxes(image, rows)
                for _, rows in sorted(by_span.items())
                if clean_label(rows[0].text or "")
            )
            examples.append((prompt_text(text.text), answer))
    return examples


def _referring(image: _Rows) -> _Pairs:
    """By phrase: wherever the image's texts say the same words, their masks are its answer."""
    by_words: dict[str, tuple[str, list[Row]]] = {}
    for row in image.masks:
        owner = row.parent
        if row.kind == "phrase" and isinstance(owner, Annotation) and prompt_text(owner.text or ""):
            words = prompt_text(owner.text or "")
            by_words.setdefault(words.casefold(), (words, []))[1].append(row)
    return [(words, _instances(image, rows)) for words, rows in by_words.values()]


def _region_masks(image: _Rows) -> _Pairs:
    rows = [
        row
        for row in image.masks
        if row.kind == "region" and isinstance(row.parent, Annotation) and row.parent.box is not None
    ]
    by_place: dict[str, list[Row]] = {}
    for row in rows:
        assert isinstance(row.parent, Annotation)
        by_place.setdefault(image.at(row.parent), []).append(row)
    return [(place, _instances(image, same)) for place, same in by_place.items()]


def _instances(image: _Rows, rows: Iterable[Row]) -> str:
    """The outline of each mask; the marks of a polygon stand only where there are several masks."""
    distinct = _once(rows, key=lambda row: (row.mask or {}).get("counts"))
    shapes = [
        "<sep>".join(written(ring.reshape(-1), image.size) for ring in outlines(row.mask or {}))
        for row in image.larger_first(distinct)
    ]
    shapes = [shape for shape in shapes if shape]
    return shapes[0] if len(shapes) == 1 else "".join(f"<poly>{shape}</poly>" for shape in shapes)


def _of_region(granularity: str) -> Callable[[_Rows], _Pairs]:
    def write(image: _Rows) -> _Pairs:
        return [(image.at(row), label) for label, row in image.labelled(granularity)]

    return write


_WRITERS: Mapping[str, Callable[[_Rows], _Pairs]] = {
    **{task: _caption(granularity) for task, granularity in _CAPTIONS.items()},
    "OCR": _writing,
    "OCR_WITH_REGION": _writing_with_regions,
    "OD": _detection("phrase"),
    "DENSE_REGION_CAPTION": _detection("brief"),
    "REGION_PROPOSAL": _proposals,
    "OPEN_VOCABULARY_DETECTION": _open_vocabulary,
    "CAPTION_TO_PHRASE_GROUNDING": _grounding,
    "REFERRING_EXPRESSION_SEGMENTATION": _referring,
    "REGION_TO_SEGMENTATION": _region_masks,
    "REGION_TO_CATEGORY": _of_region("phrase"),
    "REGION_TO_DESCRIPTION": _of_region("brief"),
    "REGION_TO_OCR": _of_region("ocr"),
}
