"""The first pass: look at every image of a unit once, and write down what was found.

A unit becomes one file under DATASET/.ingest/, put in place in one step, with the unit's fingerprint:
a killed ingest goes on with the units that have none. A row holds one of three things, as a struct: an
image (without its bytes), a label that its source gives it, or a failure. Which images are the same is
not known yet; that is the second pass (data_engine.ingest.merge).
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import DatasetError, ImageError, SourceError
from data_engine.fingerprint import digest
from data_engine.image import ImageInfo, inspect
from data_engine.image_bytes import MAX_BYTES, ByteReader
from data_engine.ingest.item import Item, Unit
from data_engine.schema import ANNOTATIONS, FAILURES, IMAGES
from data_engine.shards import iter_batches, read_provenance, write_shard
from data_engine.storage import Store

FOLDER = ".ingest"

VERSION = 1
"""Raised when the same unit would be staged differently: what an older version staged is made anew."""

LABEL_SOURCES = ("human", "alt_text", "truth")


def _struct(fields: list[pa.Field]) -> pa.StructType:
    """Every field may be null here, as the whole struct is in the rows that hold something else."""
    return pa.struct([field.with_nullable(True) for field in fields])


_IMAGE = _struct(
    [
        pa.field("image_id", pa.string()),
        pa.field("key", pa.string()),
        *(
            IMAGES.field(name)
            for name in ("uri", "offset", "length", "width", "height", "format", "metadata")
        ),
    ]
)
_LABEL = _struct(list(ANNOTATIONS))
_FAILURE = _struct(list(FAILURES))

STAGED = pa.schema(
    [
        pa.field("place", pa.int64(), nullable=False),
        pa.field("seq", pa.int32(), nullable=False),
        pa.field("image", _IMAGE),
        pa.field("label", _LABEL),
        pa.field("failure", _FAILURE),
    ]
)
"""`place` says where in the source an image stands: unit and item as one number; `seq` orders the
labels of one image, and its failures."""

_EMPTY = pa.RecordBatch.from_pylist([], schema=STAGED)

_PLACE_BITS = 36
"""Items of one unit: 2**36; units of a source: 2**27."""

_ROWS = 1000
_AHEAD_BYTES = 256 << 20
_MAX_METADATA = 1 << 20


def place_of(unit: int, item: int) -> int:
    return (unit << _PLACE_BITS) | item


def unit_and_item(place: int) -> tuple[int, int]:
    return place >> _PLACE_BITS, place & ((1 << _PLACE_BITS) - 1)


def staged_name(unit: int) -> str:
    return f"{FOLDER}/{unit:08d}.parquet"


def what_counts(unit: Unit) -> dict[str, Any]:
    """What of a unit its rows depend on: not what is only told in the summary."""
    return {name: value for name, value in unit.what.items() if name not in ("ignored", "left_out")}


def unit_fingerprint(format_name: str, unit: Unit) -> str:
    return digest({"stage": VERSION, "format": format_name, "what": what_counts(unit)})


def staged_counts(store: Store, name: str, fingerprint: str) -> tuple[int, int] | None:
    """Images and failures of a staged unit; None where the file is another's, or damaged."""
    if (read_provenance(store, name) or {}).get("fingerprint") != fingerprint:
        return None
    images = failures = 0
    try:
        # All of it, not the two columns alone: what is damaged is staged again now, and fails no merge later.
        for rows in iter_batches(store, name, 65_536, STAGED.names):
            images += len(rows) - rows["image"].null_count
            failures += len(rows) - rows["failure"].null_count
    except DatasetError:
        return None
    return images, failures


@dataclass(slots=True)
class _Seen:
    """One item after its bytes were looked at: what the image is, or why there is none."""

    item: Item
    info: ImageInfo | None = None
    length: int = 0
    labels: list[Annotation] = field(default_factory=list)
    errors: list[ImageError] = field(default_factory=list)


def stage_unit(
    store: Store,
    unit: Unit,
    items: Iterable[Item],
    fingerprint: str,
    pool: Executor,
    reader: ByteReader,
    workers: int,
    tick: Callable[[int, int], None],
) -> None:
    """Stage one unit. `tick` is told of images and failures since it was last called.

    Memory is bounded whatever the unit's size: by `workers` * 4 images, or 256 MiB of them and one
    more, and the rows of a thousand.
    """
    seen = _looked_at(items, pool, reader, workers)
    write_shard(
        store,
        staged_name(unit.index),
        _batches(unit.index, seen, tick),
        STAGED,
        {"stage": "ingest", "fingerprint": fingerprint},
    )


def _looked_at(items: Iterable[Item], pool: Executor, reader: ByteReader, workers: int) -> Iterator[_Seen]:
    """Items in their order, looked at by several threads: Pillow lets go of the lock as it decodes."""
    waiting: deque[tuple[Future[_Seen], int]] = deque()
    held = 0
    try:
        for item in items:
            size = item.length or len(item.data or b"")
            while waiting and (len(waiting) >= workers * 4 or held + size > _AHEAD_BYTES):
                future, freed = waiting.popleft()
                held -= freed
                yield future.result()
            waiting.append((pool.submit(_look, item, reader), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()
    except OSError as error:
        raise SourceError(f"the source cannot be read: {error}", "run the same command again") from error
    finally:
        for future, _ in waiting:
            future.cancel()


def _look(item: Item, reader: ByteReader) -> _Seen:
    seen = _Seen(item)
    if item.error is not None:
        seen.errors.append(item.error)
        return seen
    try:
        data = item.data if item.data is not None else reader.read(item.uri, item.offset, item.length)
        item.data = None
        if len(data) > MAX_BYTES:
            raise ImageError("too_large", f"{len(data):,} bytes, more than {MAX_BYTES:,}")
        seen.length = len(data)
        seen.info = inspect(data)
    except ImageError as error:
        # Without its traceback, whose frames would keep the bytes of a thousand bad images until they are staged.
        seen.errors.append(ImageError(error.reason, error.message))
        return seen
    if item.labels is not None:
        try:
            for label in item.labels(seen.info):
                if isinstance(label, ImageError):
                    seen.errors.append(label)
                elif (label.source or "human") not in LABEL_SOURCES:
                    known = ", ".join(LABEL_SOURCES)
                    seen.errors.append(
                        ImageError("bad_annotation", f"source {label.source!r} is none of {known}")
                    )
                else:
                    seen.labels.append(label)
        except (ImageError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            seen.errors.append(ImageError("bad_annotation", f"labels cannot be read: {error}"))
    return seen


def _batches(unit: int, seen: Iterator[_Seen], tick: Callable[[int, int], None]) -> Iterator[pa.RecordBatch]:
    rows = _Rows(unit)
    for number, one in enumerate(seen):
        rows.add(number, one)
        if rows.images + rows.failures >= _ROWS:
            yield rows.batch()
            tick(rows.images, rows.failures)
            rows = _Rows(unit)
    yield rows.batch()
    tick(rows.images, rows.failures)


class _Rows:
    """Rows of a few items on their way into the staged file."""

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.images = 0
        self.failures = 0
        self._image_rows: list[dict[str, Any]] = []
        self._failure_rows: list[dict[str, Any]] = []
        # An image that comes again says its labels again, and these must get the same ids: those of its
        # second coming are rows apart, since AnnotationRows tells twins of one list from one another.
        self._labels: list[tuple[AnnotationRows, list[int]]] = []
        self._comings: Counter[str] = Counter()

    def add(self, number: int, seen: _Seen) -> None:
        place = place_of(self.unit, number)
        item, info = seen.item, seen.info
        key = _clean(item.key)
        if info is not None:
            self.images += 1
            image = {
                "image_id": info.image_id,
                "key": key,
                "uri": item.uri,
                "offset": item.offset,
                "length": seen.length,
                "width": info.width,
                "height": info.height,
                "format": info.format,
                "metadata": _metadata_json(item.metadata),
            }
            self._image_rows.append({"place": place, "seq": 0, "image": image})
            coming = self._comings[info.image_id]
            self._comings[info.image_id] += 1
            if coming == len(self._labels):
                self._labels.append((AnnotationRows("human"), []))
            rows, places = self._labels[coming]
            seen.errors += rows.add(info.image_id, seen.labels, (info.width, info.height))
            places += [place] * (len(rows) - len(places))
        for seq, error in enumerate(seen.errors):
            self.failures += 1
            failure = {
                "stage": "ingest",
                "image_id": info.image_id if info is not None else None,
                "key": key,
                "uri": None if item.uri is None else _clean(item.uri),
                "reason": error.reason,
                "message": _clean(str(error))[:2000],
            }
            self._failure_rows.append({"place": place, "seq": seq, "failure": failure})

    def batch(self) -> pa.RecordBatch:
        """One batch, which becomes one row group: the merge relies on an item's rows being in one."""
        tables = [pa.Table.from_pylist([*self._image_rows, *self._failure_rows], schema=STAGED)]
        for rows, places in self._labels:
            said = rows.table()
            columns = [column.combine_chunks() for column in said.columns]
            label = pa.StructArray.from_arrays(columns, fields=list(_LABEL))
            nulls = [pa.nulls(len(said), STAGED.field(name).type) for name in ("image", "failure")]
            seq = pa.array(range(len(said)), pa.int32())
            arrays = [pa.array(places, pa.int64()), seq, nulls[0], label, nulls[1]]
            tables.append(pa.table(arrays, schema=STAGED))
        (batch,) = pa.concat_tables(tables).combine_chunks().to_batches() or [_EMPTY]
        return batch


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _metadata_json(metadata: dict[str, Any]) -> str | None:
    """JSON that every reader takes: no NaN, no lone surrogates; dates and the like as strings."""
    if not metadata:
        return None
    try:
        text = json.dumps(metadata, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(metadata), ensure_ascii=False, default=str)
    text = _clean(text)
    return text if len(text) <= _MAX_METADATA else json.dumps({"left_out": f"{len(text):,} characters"})


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
