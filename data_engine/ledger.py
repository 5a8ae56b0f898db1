"""What drivers remember of finished shards, so that a start does not open 100,000 files to see what is in them.

`ledger/<folder>/*.parquet` holds a row per finished shard: its fingerprint, and the size and time of its file. A row
is believed only where one listing of the folder shows that very size and time; of all other shards the footer is
read. So it is a cache and nothing else: without it a start takes longer, and a wrong, old or damaged one costs time,
never a row. Several drivers write files of their own.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from data_engine.errors import FdeError
from data_engine.shards import read_provenances, read_table, write_shard
from data_engine.storage import Stamp, Store

log = logging.getLogger("data_engine")

FOLDER = "ledger"

_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime", pa.int64()),
    ]
)

_FILES = 16
"""With more files than this, the next driver writes one in their place."""

_ROWS = 50_000
_EVERY_SECONDS = 30.0
_SHARE = 20
"""Rows are kept back for at most a twentieth of a run's time: a day makes about a hundred files, not thousands."""

_THREADS = 16


@dataclass(frozen=True)
class Found:
    """The shards that lie in a folder: `fingerprints` (None for a file that is damaged) and `stamps` by shard.

    `files` is what the ledger is written in now, and `read` for how many shards that did not help: their footers
    were read.
    """

    folder: str
    fingerprints: Mapping[str, str | None]
    stamps: Mapping[str, Stamp]
    files: Sequence[str]
    read: int


def find(
    store: Store, folder: str, shards: Collection[str] | None = None, seen: Mapping[str, Stamp] | None = None
) -> Found:
    """What lies in a folder of shards, by one listing, the ledger, and the footers of the rest.

    With `shards`, others are passed over; with `seen`, so is what had the same
    stamp at an earlier look.
    """
    there = {name.removesuffix(".parquet"): stamp for name, stamp in store.stamps(folder).items()}
    if shards is not None:
        wanted = shards if isinstance(shards, set | frozenset) else frozenset(shards)
        there = {shard: stamp for shard, stamp in there.items() if shard in wanted}
    if seen is not None:
        there = {shard: stamp for shard, stamp in there.items() if seen.get(shard) != stamp}
    files = [f"{FOLDER}/{folder}/{name}" for name in store.files(f"{FOLDER}/{folder}")] if there else []
    known = _believed(_read(store, files), there)
    unknown = [shard for shard in there if shard not in known]
    if unknown:
        provenances = read_provenances(store, [f"{folder}/{shard}.parquet" for shard in unknown])
        said = [None if one is None else one.get("fingerprint") for one in provenances]
        known.update(
            (shard, one if isinstance(one, str) else None) for shard, one in zip(unknown, said, strict=True)
        )
    return Found(folder, known, there, files, len(unknown))


def _read(store: Store, files: Sequence[str]) -> pa.Table:
    def one(name: str) -> pa.Table:
        try:
            return read_table(store, name, _SCHEMA.names).cast(_SCHEMA)
        except (FdeError, pa.ArrowException) as error:  # removed meanwhile by another driver, or damaged
            log.debug("%s is not used: %s", name, error)
            return _SCHEMA.empty_table()

    if not files:
        return _SCHEMA.empty_table()
    with ThreadPoolExecutor(_THREADS) as pool:
        return pa.concat_tables(pool.map(one, files))


def _believed(rows: pa.Table, there: Mapping[str, Stamp]) -> dict[str, str | None]:
    """Fingerprints by shard of the rows that the listing confirms. Where two say different things, neither counts."""
    known: dict[str, str | None] = {}
    denied: set[str] = set()
    for shard, fingerprint, size, mtime in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        stamp = there.get(shard)
        if stamp is None or mtime is None or (stamp.size, stamp.mtime) != (size, mtime):
            continue
        if known.setdefault(shard, fingerprint) != fingerprint:
            denied.add(shard)
    return {shard: said for shard, said in known.items() if shard not in denied}


def _table(rows: Sequence[tuple[str, str | None, Stamp]]) -> pa.Table:
    return pa.table(
        [
            pa.array([shard for shard, _, _ in rows], pa.string()),
            pa.array([fingerprint for _, fingerprint, _ in rows], pa.string()),
            pa.array([stamp.size for _, _, stamp in rows], pa.int64()),
            pa.array([stamp.mtime for _, _, stamp in rows], pa.int64()),
        ],
        schema=_SCHEMA,
    )


@dataclass
class Ledger:
    """What one driver adds. Writing goes on in a thread of its own, and never ends a run."""

    store: Store
    _pending: dict[str, list[tuple[str, str | None, Stamp]]] = field(default_factory=dict)
    _count: int = 0
    _files: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _written: float = field(default_factory=time.monotonic)
    _name: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}")
    _thread: ThreadPoolExecutor | None = None
    _last: Future[None] | None = None

    def add(self, folder: str, shard: str, fingerprint: str, stamp: Stamp) -> None:
        """A shard was finished; its file has this stamp."""
        self._pending.setdefault(folder, []).append((shard, fingerprint, stamp))
        self._count += 1
        now = time.monotonic()
        wait = max(_EVERY_SECONDS, (now - self._begun) / _SHARE)
        if self._count >= _ROWS or now - self._written >= wait:
            self.flush(wait=False)

    def keep(self, found: Found) -> None:
        """Write down what footers said, and many small files as one."""
        if found.read or len(found.files) > _FILES:
            self._submit(self._replace, found)

    def flush(self, *, wait: bool = True) -> None:
        """Write what was added; at the end of a run, wait until it is written."""
        pending, self._pending, self._count, self._written = self._pending, {}, 0, time.monotonic()
        for folder, rows in pending.items():
            self._submit(self._write, folder, _table(rows))
        if wait and self._last is not None:
            self._last.result()

    def _submit(self, do, *args) -> None:  # type: ignore[no-untyped-def]
        def quietly() -> None:
            try:
                do(*args)
            except FdeError as error:
                log.debug("the ledger was not written: %s", error.message)

        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._last = self._thread.submit(quietly)

    def _write(self, folder: str, rows: pa.Table) -> None:
        self._files += 1
        write_shard(
            self.store, f"{FOLDER}/{folder}/{self._name}-{self._files:05d}.parquet", rows, _SCHEMA, {}
        )

    def _replace(self, found: Found) -> None:
        # A damaged file is not written down: it is looked at each time, since it may have been a moment's trouble.
        sound = [
            (shard, said, found.stamps[shard])
            for shard, said in found.fingerprints.items()
            if said is not None
        ]
        self._write(found.folder, _table(sound))
        # Only then: a driver that reads meanwhile finds every row at least once.
        for name in found.files:
            self.store.delete(name)
