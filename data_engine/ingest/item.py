"""What every source format gives: items, in units that can be read apart from one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from data_engine.image import ImageInfo


@dataclass(slots=True)
class Item:
    """One image of a source, before its bytes are looked at.

    `key` is the source's own name for it. The bytes are `length` bytes at `offset` of `uri` (the whole
    file where `offset` is None); `data` holds them already where reading the source gave them anyway.
    Without a `uri` the bytes have no address of their own and are copied into the data set.
    `labels` makes the annotations that the source has, once the image's size is known; their `source`
    is `human` or `alt_text` (`truth` for scenes). An ImageError among them stands for one label that
    cannot be used. `error` is set instead when the source says that the image exists but it cannot be
    had: it becomes a row in `failures`.
    """

    key: str
    uri: str | None = None
    offset: int | None = None
    length: int | None = None
    data: bytes | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    labels: Callable[[ImageInfo], Sequence[Annotation | ImageError]] | None = None
    error: ImageError | None = None


@dataclass(frozen=True)
class Unit:
    """A part of a source that is read, staged and resumed as one: a tar, a Parquet file, some files.

    `what` is plain data (it travels to workers and into the fingerprint of the staged unit). Two of
    its entries are for the summary and count in no fingerprint: `ignored`, the number of files passed
    over, and `left_out`, what was left out on purpose, as `{"crowd regions": 7}`.
    """

    index: int
    what: dict[str, Any]


class SourceFormat(Protocol):
    """One file per format. Modules implement it directly: `detect`, `units` and `items` are functions.

    `units` numbers them from 0, always in the same order; `items` of a unit are the same each time.
    Both raise SourceError for a source that is not what the format needs.

    A format whose `units` has much to parse may also have `identity(source) -> Iterator[Any]`: plain
    data that is quickly had and changes when the source does (names, sizes, times).
    """

    NAME: str

    def detect(self, source: str) -> bool: ...

    def units(self, source: str) -> Iterator[Unit]: ...

    def items(self, unit: Unit) -> Iterator[Item]: ...
