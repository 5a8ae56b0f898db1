"""The files of a data set, by their footers: which are there, can be read, and are up to date.

A query over shards stops at the first that is damaged or lacks a column. So the files are looked at first:
what cannot be read is left out of the views (and is a row of `shards` that a check selects), and what lacks
a column is read without it. Damage behind a sound footer shows only where all of a file is read, and its
pages are held against their checksums (`data_engine.shards.write_shard`): DuckDB, which answers queries, passes those over.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.dataset import Dataset
from data_engine.errors import StorageError
from data_engine.fingerprint import digest
from data_engine.qa.scope import rounds
from data_engine.refine_part import judged_in
from data_engine.schema import ANNOTATIONS, FAILURES, IMAGES, ROUNDS, RUNS, VERDICTS
from data_engine.storage import storage_errors

SCHEMAS = {
    "images": IMAGES,
    "annotations": ANNOTATIONS,
    "verdicts": VERDICTS,
    "failures": FAILURES,
    "runs": RUNS,
    "rounds": ROUNDS,
}

_PROVENANCE = b"fde"
"""The key of `data_engine.shards.write_shard` in a Parquet footer."""

_ROWS_READ, _PICTURES_READ = 65_536, 64

Depth = Literal["footers", "rows", "all"]
"""How much of each file is read: its footer, its rows without embedded pictures, or all of it."""

SHARDS = pa.schema(
    [
        pa.field("tables", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("problem", pa.string()),
        pa.field("format", pa.int64()),
        pa.field("rows", pa.int64()),
        pa.field("rows_told", pa.int64()),
        pa.field("images_told", pa.int64()),
        pa.field("fingerprint", pa.string()),
        pa.field("missing_columns", pa.list_(pa.string())),
        pa.field("other_columns", pa.list_(pa.string())),
        pa.field("stale", pa.string()),
    ]
)
"""The view `shards`. `tables` is the folder (images, annotations, ...), `stage` the source, round or stage in
it. `state`: `there`, `missing`, or `damaged` with the `problem`. `rows` is what the file holds, `rows_told` and
`images_told` what its provenance says it does. `missing_columns` are those of the schema that it lacks or has as
a type that cannot be taken for it, `other_columns` those that the schema does not know. `stale` says why its
content is no longer what it would be, if so."""


@dataclass(frozen=True)
class Shard:
    """One file of a data set, or the place of one that is missing; the fields are those of SHARDS."""

    tables: str
    stage: str
    shard: str
    file: str
    state: str = "there"
    problem: str | None = None
    format: int | None = None
    rows: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    missing_columns: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    stale: str | None = None

    @property
    def usable(self) -> bool:
        return self.state == "there"


@dataclass(frozen=True)
class Survey:
    """All files of a data set, and those that should be there."""

    shards: tuple[Shard, ...]

    def of(self, tables: str) -> list[Shard]:
        return [shard for shard in self.shards if shard.tables == tables and shard.usable]

    def table(self) -> pa.Table:
        """The rows of the view `shards`."""
        rows = [_row(shard) for shard in self.shards]
        return pa.Table.from_pylist(rows, schema=SHARDS)


def survey(
    dataset: Dataset, wanted: Mapping[str, str] | None = None, threads: int = 16, depth: Depth = "footers"
) -> Survey:
    """Look at every file, as deep as asked.

    `wanted` are fingerprints by specialist, of a recipe that the data set should be of: shards of another are stale.
    Without, those are stale that differ from most of their source, and verdicts on other annotations than there are.
    """
    places = list(_places(dataset))
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(partial(_read, dataset, depth), places, chunksize=64))
    return Survey(tuple(_with_stale(found, wanted or {})))


def _places(dataset: Dataset) -> Iterator[Shard]:
    """Every file that is there, and every one that should be: each source has one for each shard of images."""
    store = dataset.store
    named = dict.fromkeys(dataset.shards)
    whole = {"annotations": store.folders("annotations"), "verdicts": [str(r) for r in rounds(dataset)]}
    for tables, stages in {
        "images": [""],
        **whole,
        "failures": store.folders("failures"),
        "runs": [""],
        "rounds": store.folders("rounds"),
    }.items():
        for stage in stages:
            folder = f"{tables}/{stage}" if stage else tables
            there = {name.removesuffix(".parquet"): None for name in store.files(folder)}
            wanted = named if tables in ("images", *whole) else {}
            for shard in sorted({**wanted, **there}):
                place = Shard(tables, stage, shard, f"{folder}/{shard}.parquet")
                yield place if shard in there else replace(place, state="missing")


def _read(dataset: Dataset, depth: Depth, place: Shard) -> Shard:
    if not place.usable:
        return place
    store = dataset.store
    try:
        with storage_errors(place.file), store.filesystem.open_input_file(store.path(place.file)) as file:
            parquet = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            footer, schema = parquet.metadata, parquet.schema_arrow
            if depth != "footers":
                columns = [name for name in schema.names if name != "bytes" or depth == "all"]
                pictures = "bytes" in columns
                for _ in parquet.iter_batches(_PICTURES_READ if pictures else _ROWS_READ, columns=columns):
                    pass
            provenance = json.loads((footer.metadata or {}).get(_PROVENANCE, b"{}"))
            provenance = provenance if isinstance(provenance, dict) else {}
    except (pa.ArrowException, StorageError, ValueError) as error:
        # Bad pages are an OSError of Arrow's, and so a StorageError here.
        why = error.__cause__ if isinstance(error, StorageError) else error
        return replace(place, state="damaged", problem=" ".join(str(why).split())[:200])
    wanted = SCHEMAS[place.tables]
    format_ = provenance.get("format")
    return replace(
        place,
        format=format_ if isinstance(format_, int) else None,
        rows=footer.num_rows,
        columns={column.name: str(column.type) for column in schema},
        missing_columns=tuple(
            column.name
            for column in wanted
            if column.name not in schema.names or not _fits(schema.field(column.name).type, column.type)
        ),
        provenance=provenance,
    )


def _fits(type_: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of a type can be read as another."""
    if type_ == wanted:
        return True
    if pa.types.is_nested(wanted):
        return bool(pa.types.is_list(wanted)) and (
            pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_)
        )
    if pa.types.is_nested(type_):
        return False
    try:
        pa.nulls(0, type_).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _with_stale(shards: list[Shard], wanted: Mapping[str, str]) -> Iterator[Shard]:
    stages: dict[tuple[str, str], Counter[str]] = {}
    prints: dict[str, dict[str, str | None]] = {}
    for shard in shards:
        mark = shard.provenance.get("fingerprint")
        if shard.tables in ("images", "annotations") and shard.usable:
            stages.setdefault((shard.tables, shard.stage), Counter())[str(mark)] += 1
            if shard.tables == "annotations":
                prints.setdefault(shard.shard, {})[shard.stage] = mark
    usual = {stage: marks.most_common(1)[0][0] for stage, marks in stages.items()}
    for shard in shards:
        yield replace(shard, stale=_stale(shard, wanted, usual, prints)) if shard.usable else shard


def _stale(
    shard: Shard,
    wanted: Mapping[str, str],
    usual: Mapping[tuple[str, str], str],
    prints: Mapping[str, dict[str, str | None]],
) -> str | None:
    mark = shard.provenance.get("fingerprint")
    if shard.tables == "annotations" and shard.stage in wanted:
        return None if mark == wanted[shard.stage] else "the recipe would now say something else here"
    if shard.tables in ("images", "annotations") and str(mark) != usual[shard.tables, shard.stage]:
        return "made by other settings than most shards of its source"
    # As pipelines.filter_work writes it: what was judged, by source.
    inputs = shard.provenance.get("inputs")
    if shard.tables == "verdicts" and inputs is not None:
        there = prints.get(shard.shard, {})
        judged = {name: mark for name, mark in there.items() if judged_in(name, int(shard.stage))}
        if inputs != digest(judged):
            return "its annotations were made anew, or are more, since they were judged"
    return None


def _row(shard: Shard) -> dict[str, Any]:
    known = set(SCHEMAS[shard.tables].names)
    told = shard.provenance
    return {
        **{name: getattr(shard, name) for name in SHARDS.names if hasattr(shard, name)},
        "rows_told": _whole(told.get("rows")),
        "images_told": _whole(told.get("images")),
        "fingerprint": None if told.get("fingerprint") is None else str(told["fingerprint"]),
        "missing_columns": list(shard.missing_columns),
        "other_columns": sorted(set(shard.columns) - known),
    }


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
