"""What every source format gives: items, in units that can be read apart from one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from data_engine.image import ImageInfo


@dataclass(slots=True)
class Item:
    """One image of a source, before its bytes are looked at.

    `key` is the source's own name for it. The bytes are `length` bytes at `offset` of `uri` (the whole
    file where both are None); `data` holds them already where reading the source gave them anyway.
    `labels` makes the annotations that the source has, once the image's size is known; their `source`
    is `human` or `alt_text` (`truth` for scenes). `error` is set instead when the source says that the
    image exists but it cannot be had: it becomes a row in `failures`.
    """

    key: str
    uri: str | None = None
    offset: int | None = None
    length: int | None = None
    data: bytes | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    labels: Callable[[ImageInfo], list[Annotation]] | None = None
    error: ImageError | None = None


@dataclass(frozen=True)
class Unit:
    """A part of a source that is read, staged and resumed as one: a tar, a Parquet file, some files.

    `what` is plain data (it travels to workers and into the fingerprint of the staged unit).
    """

    index: int
    what: dict[str, Any]


class SourceFormat(Protocol):
    """One file per format. Modules implement it directly: `detect`, `units` and `items` are functions."""

    NAME: str

    def detect(self, source: str) -> bool: ...

    def units(self, source: str) -> Iterator[Unit]: ...

    def items(self, unit: Unit) -> Iterator[Item]: ...
