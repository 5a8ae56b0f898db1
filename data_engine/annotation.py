"""A statement about one image, and how a list of them becomes rows of the annotations table."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_engine.errors import ImageError
from data_engine.schema import ANNOTATIONS, KINDS

MAX_TEXT = 100_000
"""Longest text kept, in characters: a model stuck in a loop must not fill the shard."""


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


def _numbers(values: Sequence[float] | None, count: int, what: str) -> list[float] | None:
    if values is None:
        return None
    numbers = [float(v) for v in values]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ImageError("bad_annotation", f"a {what} must be {count} finite numbers, not {numbers[:9]}")
    return numbers


def _checked(a: Annotation) -> Annotation:
    """A copy with plain floats and clean text; raises ImageError for what no reader could use."""
    if a.kind not in KINDS:
        raise ImageError("bad_annotation", f"kind {a.kind!r} is none of {', '.join(KINDS)}")
    box = _numbers(a.box, 4, "box")
    if box is not None and (box[2] <= box[0] or box[3] <= box[1]):
        raise ImageError("bad_annotation", f"box {box} has no area: it must be x0 < x1 and y0 < y1")
    text = a.text
    if text is not None:
        # Lone surrogates cannot be stored as UTF-8; NUL ends strings in too many readers.
        text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")[:MAX_TEXT]
    score = None if a.score is None else float(a.score)
    if score is not None and not math.isfinite(score):
        raise ImageError("bad_annotation", f"score {score} is not finite")
    span = None if a.span is None else (int(a.span[0]), int(a.span[1]))
    mask = a.mask
    if mask is not None:
        counts = mask["counts"]
        mask = {
            "size": [int(v) for v in mask["size"]],
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
        }
    quad = _numbers(a.quad, 8, "quad")
    return Annotation(a.kind, text, a.granularity, a.parent, span, box, quad, mask, score, a.source)


class AnnotationRows:
    """Rows gathered for one shard. `add` takes what was said of one image, `table` gives them all."""

    def __init__(self, source: str, round: int = 0) -> None:
        self.source = source
        self.round = round
        self._columns: dict[str, list[Any]] = {name: [] for name in ANNOTATIONS.names}
        self._twins: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._columns["annotation_id"])

    def add(self, image_id: str, annotations: Iterable[Annotation]) -> list[ImageError]:
        """Append one image's statements; returns one error for each that could not be a row.

        A statement whose parent was refused is refused with it.
        """
        ids: dict[int, str | None] = {}
        errors: list[ImageError] = []
        for original in annotations:
            ids[id(original)] = None
            try:
                a = _checked(original)
                parent_id = self._parent_id(a, ids)
            except ImageError as error:
                errors.append(error)
                continue
            except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                errors.append(ImageError("bad_annotation", f"not an annotation: {error}"))
                continue
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
