"""The second pass: identical bytes become one image with several keys, in shards, with their labels.

The order is that of first appearance in the source; the first appearance gives the uri and the
metadata. What was staged lies in that order already, except where bytes come again: DuckDB finds those
(spilling to disk, so memory does not grow with the number of images) and sorts them, and the two are
merged as they stream by. A shard of images and its labels are in memory, never more, and of embedded
bytes 64 MiB. A shard that a killed run had finished is not written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from data_engine.errors import DamagedError, ImageError, SourceError
from data_engine.image import image_id_of
from data_engine.image_bytes import ByteReader
from data_engine.ingest.item import Item, SourceFormat
from data_engine.ingest.scratch import scratch
from data_engine.ingest.stage import FOLDER, LABEL_SOURCES, STAGED, staged_name, unit_and_item
from data_engine.schema import ANNOTATIONS, FAILURES, IMAGES
from data_engine.shards import damage_told, read_provenance, shard_name, write_shard
from data_engine.storage import Store

VERSION = 1
"""Raised when the same staged units would be merged differently."""

_BATCH_ROWS = 64
_BATCH_BYTES = 64 << 20
_STREAM_ROWS = 16_384
_AGAIN = "run the same command again: what is damaged is looked at anew"
_IMAGE_COLUMNS = ("image_id", "key", "uri", "offset", "length", "width", "height", "format", "metadata")


@dataclass
class Merged:
    """What the data set now holds."""

    images: int = 0
    keys: int = 0
    shards: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How to merge. `units` is how many are staged; `fingerprint` is written into every shard."""

    store: Store
    format: SourceFormat
    source: str
    units: int
    fingerprint: str
    shard_size: int
    embed: bool
    workers: int


def merge(plan: Plan, pool: Executor, reader: ByteReader) -> Merged:
    """Write the shards and their labels, and the failures; remove those of an earlier, other ingest."""
    store = plan.store
    folder = Path(store.path(".tmp")) if store.local else None
    with scratch(folder, plan.workers) as db, _broken_streams_told():
        staged = pyarrow.dataset.dataset(
            [store.path(staged_name(unit)) for unit in range(plan.units)],
            schema=STAGED,
            format=pyarrow.dataset.ParquetFileFormat(
                default_fragment_scan_options=pyarrow.dataset.ParquetFragmentScanOptions(
                    page_checksum_verification=True
                )
            ),
            filesystem=store.filesystem,
        )
        merged = Merged()
        merged.failures = _counts(db, staged, "failure.reason")
        sources = [s for s in LABEL_SOURCES if s in _counts(db, staged, "label.source")]
        merged.labels = dict.fromkeys(sources, 0)
        db.register("staged", staged)
        # Only fixed-size state here: lists of keys as aggregates could not be spilled.
        db.execute("""
            CREATE TABLE repeated AS
                SELECT image.image_id AS image_id, min(place) AS first FROM staged
                WHERE image.image_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1;
            CREATE TABLE again AS
                SELECT r.first, s.place, s.image.key AS key
                FROM staged s JOIN repeated r ON r.image_id = s.image.image_id
                WHERE s.image.image_id IS NOT NULL AND s.place <> r.first;
        """)
        done = _Done(store, plan.fingerprint, sources)
        keys = _Sorted(_query(db, staged, "SELECT * FROM again ORDER BY first, place"), "first")
        labels = _Labels(db, staged, plan)
        bytes_of = _Bytes(plan, pool, reader)
        try:
            for index, firsts in enumerate(_image_shards(db, staged, plan)):
                name = shard_name(index)
                last = firsts["place"][-1].as_py()
                table = _with_keys(firsts, keys.upto(last))
                names = int(pc.sum(pc.list_value_length(table["keys"])).as_py())
                provenance = {"stage": "ingest", "fingerprint": plan.fingerprint}
                said = labels.upto(last)
                for source in sources:
                    mine = said.filter(pc.equal(said["source"], source))
                    merged.labels[source] += len(mine)
                    file = f"annotations/{source}/{name}.parquet"
                    if not done.has(file):
                        write_shard(store, file, mine, ANNOTATIONS, {**provenance, "rows": len(mine)})
                file = f"images/{name}.parquet"
                if not done.has(file):
                    facts = {**provenance, "rows": len(table), "keys": names}
                    write_shard(store, file, bytes_of.batches(table), IMAGES, facts)
                merged.images += len(table)
                merged.keys += names
                merged.shards = index + 1
        finally:
            bytes_of.close()
        _write_failures(db, staged, plan, bool(merged.failures))
    _remove_others(store, merged.shards, sources)
    return merged


@contextmanager
def _broken_streams_told() -> Iterator[None]:
    """DuckDB has no error of its own for a stream that breaks off."""
    try:
        yield
    except duckdb.InvalidInputException as error:
        raise DamagedError(
            f"what was staged for this ingest is damaged: {' '.join(str(error).split())[:300]}", _AGAIN
        ) from error


def _counts(db: duckdb.DuckDBPyConnection, staged: Any, column: str) -> dict[str, int]:
    db.register("counted", staged)
    query = f"SELECT {column} AS c, count(*) FROM counted WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1"  # noqa: S608
    return {str(name): int(count) for name, count in db.execute(query).fetchall()}


def _query(db: duckdb.DuckDBPyConnection, staged: Any, query: str) -> Iterator[pa.Table]:
    """A query's rows as they come. Each has a cursor of its own: several are read in turn."""
    cursor = db.cursor()
    cursor.register("staged", staged)
    for batch in cursor.sql(query).to_arrow_reader(_STREAM_ROWS):
        yield pa.Table.from_batches([batch])


class _Sorted:
    """Tables that come sorted by one column, taken up to a value at a time."""

    def __init__(self, tables: Iterator[pa.Table], column: str) -> None:
        self._tables = tables
        self._column = column
        self._held: pa.Table | None = None

    def upto(self, value: int) -> list[pa.Table]:
        taken: list[pa.Table] = []
        while True:
            table = self._held if self._held is not None else next(self._tables, None)
            if table is None:
                return taken
            cut = int(np.searchsorted(table[self._column].to_numpy(), value, side="right"))
            taken.append(table.slice(0, cut))
            self._held = table.slice(cut) if cut < len(table) else None
            if self._held is not None:
                return taken


def _first_appearances(
    db: duckdb.DuckDBPyConnection, staged: Any, plan: Plan, struct: str, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """The staged images, or labels, in their order, without those of images that came before.

    A row group holds some items' rows whole, so whatever it lacks of an item is in no other.
    """
    again = _Sorted(_query(db, staged, "SELECT place FROM again ORDER BY place"), "place")
    for unit in range(plan.units):
        name = staged_name(unit)
        with plan.store.open(name) as stream:
            with damage_told(plan.store, name, _AGAIN):
                file = pq.ParquetFile(stream, page_checksum_verification=True)
            for group in range(file.num_row_groups):
                with damage_told(plan.store, name, _AGAIN):
                    rows = file.read_row_group(group, columns=["place", "seq", struct])
                rows = rows.filter(pc.is_valid(rows[struct]))
                if not len(rows):
                    continue
                places = rows["place"].to_numpy()
                seen = [t["place"].to_numpy() for t in again.upto(int(places.max()))]
                if any(map(len, seen)):
                    rows = rows.filter(pa.array(~np.isin(places, np.concatenate(seen))))
                flat = rows[struct].combine_chunks()
                arrays = [rows["place"], rows["seq"], *(flat.field(name) for name in columns)]
                yield pa.table(arrays, names=["place", "seq", *columns])


def _image_shards(db: duckdb.DuckDBPyConnection, staged: Any, plan: Plan) -> Iterator[pa.Table]:
    """The first appearances of the images of one shard at a time."""
    held: list[pa.Table] = []
    images = 0
    for table in _first_appearances(db, staged, plan, "image", _IMAGE_COLUMNS):
        rest = table
        while images + len(rest) >= plan.shard_size:
            cut = plan.shard_size - images
            yield pa.concat_tables([*held, rest.slice(0, cut)])
            rest, held, images = rest.slice(cut), [], 0
        held.append(rest)
        images += len(rest)
    if images:
        yield pa.concat_tables(held)


def _with_keys(firsts: pa.Table, again: list[pa.Table]) -> pa.Table:
    """Image rows with all their keys: their own, then those of the same bytes elsewhere."""
    own = firsts.select(["place", "key"]).append_column("first", firsts["place"])
    rows = pa.concat_tables([t.select(["first", "place", "key"]) for t in (own, *again)])
    rows = rows.sort_by([("first", "ascending"), ("place", "ascending")])
    starts = np.searchsorted(rows["first"].to_numpy(), firsts["place"].to_numpy())
    offsets = pa.array(np.append(starts, len(rows)), pa.int32())
    keys = pa.ListArray.from_arrays(offsets, rows["key"].combine_chunks())
    return firsts.drop_columns(["key"]).append_column("keys", keys)


class _Labels:
    """The labels in the order of their images, taken shard by shard."""

    def __init__(self, db: duckdb.DuckDBPyConnection, staged: Any, plan: Plan) -> None:
        columns = ", ".join(f"s.label.{name} AS {name}" for name in ANNOTATIONS.names)
        query = f"""
            SELECT a.first, s.place, s.seq, {columns}
            FROM staged s JOIN again a ON a.place = s.place
            WHERE s.label.image_id IS NOT NULL
            ORDER BY a.first, s.place, s.seq
        """  # noqa: S608 - our own column names
        said_first = _first_appearances(db, staged, plan, "label", ANNOTATIONS.names)
        self._first = _Sorted(said_first, "place")
        self._again = _Sorted(_query(db, staged, query), "first")

    def upto(self, place: int) -> pa.Table:
        """The labels of the images that first stand at `place` or before, each said once."""
        columns = ["first", "place", "seq", *ANNOTATIONS.names]
        tables = [t.append_column("first", t["place"]).select(columns) for t in self._first.upto(place)]
        again = [t for t in self._again.upto(place) if len(t)]
        tables += [t.select(columns).cast(tables[0].schema if tables else t.schema) for t in again]
        if not tables:
            return ANNOTATIONS.empty_table()
        table = pa.concat_tables(tables)
        if again:
            order = [(name, "ascending") for name in ("first", "place", "seq")]
            table = table.sort_by(order)
            ids = table["annotation_id"].to_numpy(zero_copy_only=False)
            _, at = np.unique(ids, return_index=True)
            table = table.take(pa.array(np.sort(at)))
        return table.select(ANNOTATIONS.names).cast(ANNOTATIONS)


class _Bytes:
    """Image rows as batches for the shard, with the bytes where the data set is to hold them.

    Bytes with an address are read there; those without come from reading the source's unit once more,
    which costs no disk for a copy in between. Either way their digest must be the one that was staged.
    """

    def __init__(self, plan: Plan, pool: Executor, reader: ByteReader) -> None:
        self.plan = plan
        self.pool = pool
        self.reader = reader
        self._units = plan.format.units(plan.source)
        self._unit = self._next_item = -1
        self._items: Iterator[Item] = iter(())

    def close(self) -> None:
        close: Callable[[], None] | None = getattr(self._units, "close", None)
        if close is not None:
            close()

    def batches(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        if not self.plan.embed and table["uri"].null_count == 0:
            table = table.append_column("bytes", pa.nulls(len(table), IMAGES.field("bytes").type))
            yield from table.select(IMAGES.names).cast(IMAGES).to_batches()
            return
        for part in _parts(table):
            rows = part.select(["place", "image_id", "uri", "offset", "length"]).to_pylist()
            addressed = [row if row["uri"] is not None else None for row in rows]
            read = list(self.pool.map(self._read if self.plan.embed else _nothing, addressed))
            data = [
                self._from_source(row) if row["uri"] is None else found
                for row, found in zip(rows, read, strict=True)
            ]
            column = pa.array(data, IMAGES.field("bytes").type)
            whole = part.append_column("bytes", column).select(IMAGES.names).cast(IMAGES)
            yield from whole.combine_chunks().to_batches()

    def _read(self, row: dict[str, Any] | None) -> bytes | None:
        if row is None:
            return None
        try:
            return self.reader.read(row["uri"], row["offset"], row["length"], verify=row["image_id"])
        except ImageError as error:
            raise self._changed(str(error)) from error

    def _from_source(self, row: dict[str, Any]) -> bytes:
        unit, number = unit_and_item(row["place"])
        while self._unit < unit:
            following = next(self._units, None)
            if following is None:
                raise self._changed("it has fewer parts now")
            self._unit = following.index
            if self._unit == unit:
                self._items, self._next_item = self.plan.format.items(following), 0
        for item in self._items:
            self._next_item += 1
            if self._next_item - 1 == number:
                if item.data is None or image_id_of(item.data) != row["image_id"]:
                    break
                return item.data
        raise self._changed(f"item {number} of part {unit} is another one now")

    def _changed(self, why: str) -> SourceError:
        return SourceError(
            f"{self.plan.source} changed while it was being ingested: {why}",
            f"run the same command again; if it fails again, first delete {self.plan.store.path(FOLDER)}",
        )


def _nothing(_: dict[str, Any] | None) -> bytes | None:
    return None


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    """Pieces of at most 64 rows and, unless one image is larger, 64 MiB."""
    lengths = table["length"].to_pylist()
    start = size = 0
    for row, length in enumerate(lengths):
        if row > start and (row - start == _BATCH_ROWS or size + length > _BATCH_BYTES):
            yield table.slice(start, row - start)
            start, size = row, 0
        size += length
    yield table.slice(start)


def _write_failures(db: duckdb.DuckDBPyConnection, staged: Any, plan: Plan, some: bool) -> None:
    name = f"failures/ingest/{shard_name(0)}.parquet"
    if not some:
        plan.store.delete(name)
        return
    columns = ", ".join(f"failure.{column} AS {column}" for column in FAILURES.names)
    query = f"SELECT {columns} FROM staged WHERE failure.reason IS NOT NULL ORDER BY place, seq"  # noqa: S608
    batches = (part for table in _query(db, staged, query) for part in table.cast(FAILURES).to_batches())
    write_shard(plan.store, name, batches, FAILURES, {"stage": "ingest", "fingerprint": plan.fingerprint})


class _Done:
    """Which shards a killed run of this same ingest had finished."""

    def __init__(self, store: Store, fingerprint: str, sources: list[str]) -> None:
        self.store = store
        self.fingerprint = fingerprint
        folders = ["images", *(f"annotations/{source}" for source in sources)]
        self._present = {f"{folder}/{name}" for folder in folders for name in store.files(folder)}

    def has(self, name: str) -> bool:
        if name not in self._present:
            return False
        return (read_provenance(self.store, name) or {}).get("fingerprint") == self.fingerprint


def _remove_others(store: Store, shards: int, sources: list[str]) -> None:
    """An unfinished ingest that goes on with a source that changed may have left shards too many."""
    names = {f"{shard_name(i)}.parquet" for i in range(shards)}
    for folder in ("images", *(f"annotations/{source}" for source in LABEL_SOURCES)):
        for name in store.files(folder):
            if name not in names or (folder != "images" and folder.rpartition("/")[2] not in sources):
                store.delete(f"{folder}/{name}")
    for source in LABEL_SOURCES:
        if source not in sources:
            store.delete_folder(f"annotations/{source}")
