"""What was already said of an image, as a specialist that answers to it reads it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from data_engine.annotation import Annotation

DESCRIPTIONS = ("brief", "detailed", "more_detailed")
"""Granularities of the texts that describe the whole image: what grounding is done on."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that another may hang on; `reference` is what that other's `parent` will be."""

    reference: Annotation | str
    kind: str
    granularity: str | None
    text: str | None
    box: tuple[float, float, float, float] | None
    parent: Annotation | str | None
    masked: bool

    @property
    def describes(self) -> bool:
        return self.kind == "text" and self.granularity in DESCRIPTIONS and bool((self.text or "").strip())


def statements(said: pa.Table, sources: Collection[str] | None = None) -> dict[str, list[Statement]]:
    """The rows of `said` by image id, in their order; only those of `sources` where any are named."""
    columns = ["annotation_id", "image_id", "kind", "granularity", "text", "parent_id", "box", "source"]
    rows = said.select(columns).to_pylist()
    masked = said.column("mask").is_valid().to_pylist()
    found: dict[str, list[Statement]] = {}
    for row, has_mask in zip(rows, masked, strict=True):
        if sources is not None and row["source"] not in sources:
            continue
        found.setdefault(row["image_id"], []).append(
            Statement(
                row["annotation_id"],
                row["kind"],
                row["granularity"],
                row["text"],
                None if row["box"] is None else tuple(row["box"]),
                row["parent_id"],
                has_mask,
            )
        )
    return found


def statement_of(annotation: Annotation) -> Statement:
    """The same of an annotation that has just been made and has no id yet."""
    box = annotation.box
    return Statement(
        annotation,
        annotation.kind,
        annotation.granularity,
        annotation.text,
        None if box is None else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        annotation.parent,
        annotation.mask is not None,
    )
