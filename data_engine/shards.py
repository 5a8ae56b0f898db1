"""Parquet shards: tables written in one step, with their provenance in the file's own metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.errors import DamagedError, DatasetError, StorageError
from data_engine.schema import FORMAT_VERSION
from data_engine.storage import Stamp, Store, storage_errors

_KEY = b"fde"


def shard_name(index: int) -> str:
    """`00042`: the output of every stage for shard 42 bears the same name."""
    return f"{index:05d}"


def write_shard(
    store: Store,
    name: str,
    batches: pa.Table | Iterable[pa.RecordBatch],
    schema: pa.Schema,
    provenance: Mapping[str, Any],
) -> Stamp:
    """Write one shard. `provenance` (any JSON) is kept in the Parquet key-value metadata under `fde`.

    Its pages carry checksums: without them most bits that turn over in a page read as another value.
    """
    described = {"format": FORMAT_VERSION, **provenance}
    tagged = schema.with_metadata({_KEY: json.dumps(described, sort_keys=True).encode()})
    if isinstance(batches, pa.Table):
        batches = batches.to_batches(max_chunksize=65_536)

    def fill(stream: IO[bytes]) -> None:
        with pq.ParquetWriter(stream, tagged, compression="zstd", write_page_checksum=True) as writer:
            for batch in batches:
                writer.write_batch(batch)

    return store.write(name, fill)


def read_provenance(store: Store, name: str) -> dict[str, Any] | None:
    """The `fde` metadata of one shard, from its footer alone; None when the file is unreadable or gone.

    A shard that a disk corrupted counts as not written: the stage makes it again. So does one that a
    listing still has and the store no more.
    """
    try:
        with storage_errors(name):
            try:
                with store.filesystem.open_input_file(store.path(name)) as file:
                    found = (pq.read_metadata(file).metadata or {}).get(_KEY)
            except FileNotFoundError:
                return None
        said = None if found is None else json.loads(found)
    except (pa.ArrowInvalid, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def read_provenances(store: Store, names: Sequence[str], threads: int = 16) -> list[dict[str, Any] | None]:
    """`read_provenance` of many shards at once: the time goes into waiting for the disk or the store."""
    if len(names) < threads:
        return [read_provenance(store, name) for name in names]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda name: read_provenance(store, name), names, chunksize=64))


def read_table(store: Store, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    hint = "delete that file and run the stage again: only it is made anew"
    with damage_told(store, name, hint), store.open(name) as file:
        shard = pq.ParquetFile(file, page_checksum_verification=True)
        absent = [column for column in columns or () if column not in shard.schema_arrow.names]
        if absent:
            raise DatasetError(
                f"the shard {store.path(name)} has no column {absent[0]!r}",
                "its columns stand in data_engine/schema.py; delete that file and run the stage again",
            )
        return shard.read(columns=columns)


def iter_batches(
    store: Store, name: str, rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """A shard in pieces of at most `rows`, so that embedded images never all lie in memory.

    Read with embedded images its pages are not held against their checksums: each image has a digest of its own,
    its `image_id`, and one that is damaged shall not cost the others of its page.
    """
    hint = "restore it from the source, or ingest again"
    sums = columns is not None and "bytes" not in columns
    with damage_told(store, name, hint), _present(store, name, hint) as file:
        shard = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=sums)
        yield from shard.iter_batches(batch_size=rows, columns=columns)


def _present(store: Store, name: str, hint: str) -> pa.NativeFile:
    """The open file. Raises DatasetError where it is gone: that costs the shard's own units, not a whole run."""
    try:
        return store.open(name)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise DatasetError(f"the shard {store.path(name)} is gone", hint) from error
        raise


@contextmanager
def damage_told(store: Store, name: str, hint: str) -> Iterator[None]:
    """Raises DamagedError where a shard that is read here turns out to be damaged."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        # Bytes that do not decompress are an OSError of Arrow's without a number; a disk's own has one, and a
        # store that is out of reach is a StorageError already.
        if isinstance(error, OSError) and error.errno is not None:
            with storage_errors(store.path(name)):
                raise
        raise DamagedError(
            f"the shard {store.path(name)} is damaged: {' '.join(str(error).split())}", hint
        ) from error
