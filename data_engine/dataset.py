"""A data set: a folder of Parquet shards, at any URL. Nothing in it is rewritten in place.

dataset.json                      what it is; its presence says that ingest finished
images/00000.parquet              one row per image
annotations/<source>/00000.parquet   what one specialist (or the imported labels) said
verdicts/<round>/00000.parquet    each annotation's fate
failures/<stage>/00000.parquet    what could not be used, and why
runs/<run id>.parquet             one row per stage of each run
ledger/                           what drivers remember of finished shards (data_engine.ledger); may be deleted
models/<round>/                   the student of a round of refinement
rounds/<round>/                   what its labels are worth, and whether they are used (docs/refine.md)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import DatasetError, NewerFormatError
from data_engine.schema import ANNOTATIONS, FAILURES, FORMAT_VERSION, RUNS
from data_engine.shards import iter_batches, read_table, shard_name, write_shard
from data_engine.storage import Stamp, Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Names of stages become folder names: nothing that could leave the data set's folder."""


_NUMBERS = ("images", "shards", "shard_size", "format")
_MOST_SHARDS = 10_000_000
_MOST_BYTES = 1 << 20
"""Of dataset.json, which has less than a thousand."""


@dataclass(frozen=True)
class DatasetInfo:
    """`dataset.json`. `fingerprint` identifies the source and the ingest options."""

    id: str
    source: str
    source_format: str
    fingerprint: str
    images: int
    shards: int
    shard_size: int
    embedded: bool
    labels: list[str]
    version: str
    format: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Raises ValueError for what no ingest writes: the file may come from anybody."""
        for field, value in asdict(self).items():
            kind = {"embedded": bool, "labels": list}.get(field, int if field in _NUMBERS else str)
            if type(value) is not kind:
                raise ValueError(f"{field} is no {kind.__name__}")
        if self.images < 0 or self.shard_size < 1 or not 0 <= self.shards <= _MOST_SHARDS:
            raise ValueError(f"{self.images:,} images in {self.shards:,} shards of {self.shard_size:,}")
        for name in self.labels:
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise ValueError(f"{str(name)[:80]!r} is no name of labels")


class Dataset:
    """An ingested data set. `Dataset.open(url)` raises DatasetError when there is none."""

    def __init__(self, store: Store, info: DatasetInfo) -> None:
        self.store = store
        self.info = info

    @property
    def url(self) -> str:
        return self.store.url

    @classmethod
    def open(cls, url: str) -> Dataset:
        store = Store(url)
        if not store.exists("dataset.json"):
            raise DatasetError(
                f"{url} is not a data set: it holds no dataset.json",
                "make one with: fde ingest SOURCE DATASET (an interrupted ingest goes on the same way)",
            )
        try:
            with store.open("dataset.json") as file:
                fields = json.loads(file.read(_MOST_BYTES))
            version = fields["format"]
            if version > FORMAT_VERSION:
                raise NewerFormatError(
                    f"{url} has format {version}; this version reads up to {FORMAT_VERSION}",
                    "upgrade with: pip install -U florence-data-engine",
                )
            return cls(store, DatasetInfo(**fields))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DatasetError(
                f"{url}/dataset.json is damaged: {error}", "restore that file, or ingest again"
            ) from error

    @classmethod
    def create(cls, url: str, info: DatasetInfo) -> Dataset:
        """Commit an ingest: its shards are all there, and now it is a data set."""
        store = Store(url)
        store.write_bytes("dataset.json", (json.dumps(asdict(info), indent=2) + "\n").encode())
        return cls(store, info)

    @cached_property
    def shards(self) -> list[str]:
        """The names of all shards, in order."""
        return [shard_name(i) for i in range(self.info.shards)]

    def images_in(self, shard: str) -> int:
        """How many images a shard has: all shards but the last are full."""
        return min(self.info.shard_size, self.info.images - self.info.shard_size * int(shard))

    def sources(self) -> list[str]:
        """Every source that has said something: specialists and imported labels."""
        return self.store.folders("annotations")

    def sql(self, query: str) -> pa.Table:
        """All rows of one SELECT over the data set's views (data_engine.query). Raises QueryError."""
        from data_engine import query as queries  # it opens data sets itself

        return queries.sql(self, query)

    def image_batches(
        self, shard: str, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        return iter_batches(self.store, f"images/{shard}.parquet", rows, columns)

    def annotations(self, source: str, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        """What one source said about one shard. Raises StorageError when that was not written."""
        return read_table(self.store, f"annotations/{source}/{shard}.parquet", columns)

    def kept(self, said: pa.Table, round_: int, shard: str) -> pa.Table:
        """Annotations of one shard without those that a round's verdicts dropped.

        Raises StorageError where the shard was not judged.
        """
        verdicts = read_table(
            self.store, f"verdicts/{round_}/{shard}.parquet", columns=["annotation_id", "kept"]
        )
        dropped = verdicts.filter(pc.invert(verdicts["kept"]))["annotation_id"].combine_chunks()
        return said.filter(pc.invert(pc.is_in(said["annotation_id"], value_set=dropped)))

    def write_annotations(
        self, source: str, shard: str, table: pa.Table, provenance: Mapping[str, Any]
    ) -> Stamp:
        return write_shard(
            self.store, f"annotations/{source}/{shard}.parquet", table, ANNOTATIONS, provenance
        )

    def write_failures(self, stage: str, shard: str, rows: list[dict[str, Any]]) -> None:
        """Replace a stage's failures for one shard; none means that no file stays."""
        name = f"failures/{stage}/{shard}.parquet"
        if rows:
            write_shard(
                self.store, name, pa.Table.from_pylist(rows, schema=FAILURES), FAILURES, {"stage": stage}
            )
        else:
            self.store.delete(name)

    def write_run(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        write_shard(self.store, f"runs/{run_id}.parquet", pa.Table.from_pylist(rows, schema=RUNS), RUNS, {})
