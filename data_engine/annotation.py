"""A statement about one image, and how a list of them becomes rows of the annotations table.

This is the one door to the table: what a model in any state says of an image is bounded here, and what
is not taken is told (docs/failures.md, "What a model may say").
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_engine.errors import ImageError
from data_engine.run_lengths import check_fills, run_lengths
from data_engine.schema import ANNOTATIONS, KINDS

MAX_TEXT = 100_000
"""Longest text of an image kept, in characters: a model stuck in a loop must not fill the shard."""

MAX_LABEL = 2_000
"""Longest text of a region, and longest phrase: some 300 words."""

MAX_ROWS = 10_000
"""Most statements of one source about one image."""

MAX_CHARACTERS = 1_000_000
"""Most characters of one source about one image: once they are reached, no further statement is taken."""

_LARGEST = 3.4e38
"""Within float32, in which numbers are stored."""

_ROUNDING = 1e-3
"""How far beyond 0..1 half precision may put a score that belongs there."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(slots=True, eq=False)
class Annotation:
    """One statement, as a specialist or an ingest source makes it.

    `parent` is the annotation that this one hangs on: another of the same image's list, which must
    stand before this one, or the `annotation_id` of a row that was said earlier. A mask's row
    repeats the kind of the statement that it belongs to and names it as its parent.
    Coordinates are pixels of the image as shown; `mask` is `{"size": [h, w], "counts": str}`.
    """

    kind: str
    text: str | None = None
    granularity: str | None = None
    parent: Annotation | str | None = None
    span: tuple[int, int] | None = None
    box: Sequence[float] | None = None
    quad: Sequence[float] | None = None
    mask: dict[str, Any] | None = None
    score: float | None = None
    source: str | None = None


def _identity(image_id: str, source: str, round_: int, parent_id: str | None, a: Annotation) -> str:
    """The id is a digest of what is said, not of its place in a list or its score.

    So a re-run that says the same gives the same id, and a verdict or a person's mark can never
    slip onto another statement when a specialist's output changes.
    """
    said = (
        image_id,
        source,
        round_,
        a.kind,
        a.granularity,
        a.text,
        parent_id,
        a.span,
        None if a.box is None else [f"{v:.3f}" for v in a.box],
        None if a.quad is None else [f"{v:.3f}" for v in a.quad],
        None if a.mask is None else a.mask["counts"],
    )
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[
        :32
    ]


def storable(text: str) -> str:
    """The text as every reader can take it, with as many characters, so that spans still fit.

    Control characters but tab and line breaks become blanks; lone surrogates, which UTF-8 lacks, `?`.
    """
    return _CONTROL.sub(" ", text.encode("utf-8", "replace").decode("utf-8"))


def _numbers(values: Sequence[float] | None, count: int, what: str) -> list[float] | None:
    if values is None:
        return None
    numbers = [float(v) for v in values]
    if len(numbers) != count or not all(abs(v) <= _LARGEST for v in numbers):
        raise ImageError("bad_annotation", f"a {what} must be {count} finite numbers, not {numbers[:9]}")
    return numbers


def _box(values: Sequence[float] | None, size: tuple[int, int] | None) -> list[float] | None:
    box = _numbers(values, 4, "box")
    if box is None:
        return None
    if size is not None:
        inside = _clipped(box, size)
        # Less than half is no longer the same box by the measure that boxes are matched with, IoU 0.5.
        if inside != box and _area(inside) < _area(box) / 2:
            width, height = size
            raise ImageError(
                "bad_annotation", f"box {box} lies mostly outside of the image, {width} x {height} pixels"
            )
        box = inside
    x0, y0, x1, y1 = array("f", box)  # as they are stored: two large numbers may be one there
    if x1 <= x0 or y1 <= y0:
        raise ImageError("bad_annotation", f"box {box} has no area: it must be x0 < x1 and y0 < y1")
    return box


def _clipped(points: Sequence[float], size: tuple[int, int]) -> list[float]:
    """x and y in turn, moved to the edge of an image of (width, height) where they lie beyond it."""
    return [min(max(v, 0.0), float(size[i % 2])) for i, v in enumerate(points)]


def _area(box: Sequence[float]) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _score(value: float | None) -> float | None:
    if value is None:
        return None
    score = float(value)
    if not -_ROUNDING <= score <= 1 + _ROUNDING:
        raise ImageError("bad_annotation", f"score {score} does not lie in 0..1")
    return min(max(score, 0.0), 1.0)


def _span(a: Annotation) -> tuple[int, int] | None:
    if a.span is None:
        return None
    start, end = (int(v) for v in a.span)
    parent = a.parent.text if isinstance(a.parent, Annotation) else None
    last = MAX_TEXT if parent is None else min(len(parent), MAX_TEXT)
    if not 0 <= start <= end <= last:
        raise ImageError("bad_annotation", f"span {start}, {end} is none in a text of {last:,} characters")
    return start, end


def _mask(mask: dict[str, Any] | None, size: tuple[int, int] | None) -> dict[str, Any] | None:
    if mask is None:
        return None
    height, width = (int(v) for v in mask["size"])
    counts = mask["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    if not isinstance(counts, str):
        raise ImageError("bad_annotation", "a mask's counts must be compressed run lengths")
    runs = run_lengths(counts)
    if (width, height) != size if size is not None else not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        wanted = "" if size is None else f", not {size[0]} x {size[1]}"
        raise ImageError("bad_annotation", f"a mask for {width} x {height} pixels{wanted}")
    if size is not None:
        check_fills(runs, height, width)
    return {"size": [height, width], "counts": counts}


def _name(value: str | None, what: str) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > 200 or storable(value) != value):
        raise ImageError("bad_annotation", f"a {what} must be a short word, not {str(value)[:40]!r}")
    return value


def _checked(a: Annotation, size: tuple[int, int] | None) -> Annotation:
    """A copy with plain floats and clean text; raises ImageError for what no reader could use."""
    if a.kind not in KINDS:
        raise ImageError("bad_annotation", f"kind {str(a.kind)[:40]!r} is none of {', '.join(KINDS)}")
    text = a.text
    if text is not None:
        text = storable(text[: MAX_TEXT if a.kind == "text" else MAX_LABEL])
    if not isinstance(a.parent, Annotation):
        _name(a.parent, "parent")
    box = _box(a.box, size)
    quad = _numbers(a.quad, 8, "quad")
    if quad is not None and size is not None:
        quad = _clipped(quad, size)
    mask = _mask(a.mask, size)
    return Annotation(
        a.kind,
        text,
        _name(a.granularity, "granularity"),
        a.parent,
        _span(a),
        box,
        quad,
        mask,
        _score(a.score),
        _name(a.source, "source"),
    )


class AnnotationRows:
    """Rows gathered for one shard. `add` takes what was said of one image, `table` gives them all."""

    def __init__(self, source: str, round: int = 0) -> None:
        self.source = source
        self.round = round
        self._columns: dict[str, list[Any]] = {name: [] for name in ANNOTATIONS.names}
        self._twins: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._columns["annotation_id"])

    def add(
        self,
        image_id: str,
        annotations: Iterable[Annotation | ImageError],
        size: tuple[int, int] | None = None,
    ) -> list[ImageError]:
        """Append one image's statements; returns an error for each that could not be a row.

        With `size`, the image's width and height, boxes are clipped to the image, and refused where that
        leaves less than half of them. A statement whose parent was refused is refused with it. Of a
        source's statements about an image the first MAX_ROWS are taken, and no more once they have
        MAX_CHARACTERS: one error of reason `too_many` counts the others. Texts are cut to MAX_TEXT, those
        of regions and phrases to MAX_LABEL: one error of reason `too_long` counts them. An ImageError
        among the statements stands for one that could not be made, and is given back.
        """
        ids: dict[int, str | None] = {}
        errors: list[ImageError] = []
        taken = characters = cut = left_out = 0
        for original in annotations:
            if isinstance(original, ImageError):
                errors.append(original)
                continue
            if taken >= MAX_ROWS or characters >= MAX_CHARACTERS:
                left_out += 1
                continue
            ids[id(original)] = None
            try:
                a = _checked(original, size)
                parent_id = self._parent_id(a, ids)
            except ImageError as error:
                errors.append(error)
                continue
            except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
                message = " ".join(storable(str(error)).split())[:200]
                errors.append(ImageError("bad_annotation", f"not an annotation: {message}"))
                continue
            taken += 1
            characters += len(a.text or "")
            cut += len(a.text or "") < len(original.text or "")
            source = a.source or self.source
            key = _identity(image_id, source, self.round, parent_id, a)
            twin = self._twins.get(key, 0)
            self._twins[key] = twin + 1
            if twin:
                key = hashlib.sha256(f"{key}/{twin}".encode()).hexdigest()[:32]
            ids[id(original)] = key
            row = (
                key, image_id, a.kind, a.granularity, a.text, parent_id, a.span, a.box, a.quad, a.mask,
                a.score, source, self.round,
            )  # fmt: skip
            for column, value in zip(self._columns.values(), row, strict=True):
                column.append(value)
        if left_out:
            errors.append(
                ImageError(
                    "too_many",
                    f"{left_out:,} annotations left out: after {taken:,}, of {characters:,} characters",
                )
            )
        if cut:
            errors.append(
                ImageError(
                    "too_long",
                    f"{cut:,} texts were cut, to {MAX_TEXT:,} characters, of regions and phrases to {MAX_LABEL:,}",
                )
            )
        return errors

    @staticmethod
    def _parent_id(a: Annotation, ids: dict[int, str | None]) -> str | None:
        if not isinstance(a.parent, Annotation):
            return a.parent
        if id(a.parent) not in ids:
            raise ImageError("bad_annotation", "a parent must stand before its children in the image's list")
        parent_id = ids[id(a.parent)]
        if parent_id is None:
            raise ImageError("bad_annotation", "its parent could not be kept")
        return parent_id

    def table(self) -> pa.Table:
        return pa.table(self._columns, schema=ANNOTATIONS)
