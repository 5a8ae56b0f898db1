"""What lies on disk of a data set, shard by shard, and queries over some of its shards within a time limit.

A viewer must open whatever there is: a source that lacks shards is read as far as it goes, and a file that
cannot be read is set aside and told of.
"""

# The SQL is put together from the names of the data set's own files.
# ruff: noqa: S608

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, FdeError, QueryError
from data_engine.query import connect, locked
from data_engine.query_errors import of_files, one_line
from data_engine.schema import ANNOTATIONS, FAILURES, FORMAT_VERSION, IMAGES, REVIEWER, VERDICTS
from data_engine.shards import read_provenance, read_table

MEMORY_LIMIT = "2GB"
QUERY_SECONDS = 20.0
"""After which one query is interrupted: a person's condition may be a cross join of the whole data set."""

_AGAIN_SECONDS = 0.1
"""Between two interrupts of one query: DuckDB forgets one that comes before the query has begun."""

_LISTED_SECONDS = 5.0
_SCHEMAS = {"images": IMAGES, "annotations": ANNOTATIONS, "verdicts": VERDICTS, "failures": FAILURES}


@dataclass(frozen=True)
class Relations:
    """The shards that a query is about, as SQL to stand behind FROM.

    `images` has the columns of the index, `bytes` only where it was asked for, and `shard` (its name) and
    `row` (the place in it).
    """

    annotations: str
    verdicts: str
    failures: str
    images: str
    marks: str


Build = Callable[[Relations], tuple[str, Sequence[Any]]]
"""Makes a query and its parameters from the relations of the chosen shards."""


class Tables:
    """A data set's files, read through DuckDB with everything locked. Safe to use from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.shards = dataset.shards
        self._base = locked(dataset, MEMORY_LIMIT)
        self._lock = threading.Lock()
        self._listed: tuple[float, dict[str, frozenset[str]]] = (-_LISTED_SECONDS, {})
        self._aside: dict[str, str] = {}

    def close(self) -> None:
        self._base.close()

    def folders(self, table: str) -> dict[str, frozenset[str]]:
        """The shards of each source (`annotations`), round (`verdicts`) or stage (`failures`)."""
        found = self._listing()
        return {
            name.split("/", 1)[1]: shards for name, shards in found.items() if name.startswith(f"{table}/")
        }

    def rounds(self) -> list[int]:
        """The rounds that have verdicts, in order."""
        return sorted(int(name) for name in self.folders("verdicts") if name.isdecimal())

    def changed(self) -> None:
        """Look at the folders again: something was written."""
        with self._lock:
            self._listed = (-_LISTED_SECONDS, {})

    @property
    def aside(self) -> list[str]:
        """What could not be read, a line each."""
        return [f"{name} is left out: {why}" for name, why in sorted(self._aside.items())]

    def set_aside(self, name: str, why: str) -> None:
        self._aside[name] = why

    def select(
        self,
        shards: Sequence[str],
        build: Build,
        *,
        sources: Iterable[str] | None = None,
        round_: int | None = None,
        views: bool = False,
        with_bytes: bool = False,
        seconds: float = QUERY_SECONDS,
    ) -> pa.Table:
        """The rows of one query over some shards: all sources or those given, all rounds or the one given.

        With `views` it may also ask the views of the whole data set (data_engine.query). Files that cannot
        be read are set aside, and the rest is asked again. Raises QueryError, in one line.
        """
        for attempt in range(3):
            connection = connect(self.dataset, MEMORY_LIMIT) if views else self._base.cursor()
            try:
                files = self._files(shards, sources, round_)
                sql, parameters = build(
                    self._relations(connection, files, alike=attempt == 0, with_bytes=with_bytes)
                )
                return _fetch(connection, sql, parameters, seconds)
            except duckdb.Error as error:
                # What stops a query may be a file that is cut, or shards whose columns differ.
                damaged = of_files(str(error))
                unlike = attempt == 0 and (damaged or isinstance(error, duckdb.BinderException))
                if attempt == 2 or not ((damaged and self._set_aside(files)) or unlike):
                    raise QueryError(*_one_line(error, seconds)) from error
            finally:
                connection.close()
        raise AssertionError("the last attempt returns or raises")

    def _listing(self) -> dict[str, frozenset[str]]:
        with self._lock:
            when, found = self._listed
            if time.monotonic() - when > _LISTED_SECONDS:
                store = self.dataset.store
                names = ["images"]
                names += [
                    f"{t}/{f}" for t in ("annotations", "verdicts", "failures") for f in store.folders(t)
                ]
                found = {
                    name: frozenset(file.removesuffix(".parquet") for file in store.files(name))
                    for name in names
                }
                self._listed = (time.monotonic(), found)
            return found

    def _files(
        self, shards: Sequence[str], sources: Iterable[str] | None, round_: int | None
    ) -> dict[str, list[str]]:
        """The files of each table that are there, in the order of the shards."""
        wanted: dict[str, list[str]] = {"images": ["images"]}
        chosen = self.folders("annotations") if sources is None else sources
        wanted["annotations"] = [f"annotations/{name}" for name in chosen]
        wanted["verdicts"] = [f"verdicts/{r}" for r in (self.rounds() if round_ is None else [round_])]
        wanted["failures"] = [f"failures/{name}" for name in self.folders("failures")]
        there = self._listing()
        return {
            table: [
                name
                for folder in folders
                for shard in shards
                if shard in there.get(folder, ()) and (name := f"{folder}/{shard}.parquet") not in self._aside
            ]
            for table, folders in wanted.items()
        }

    def _relations(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: dict[str, list[str]],
        alike: bool,
        with_bytes: bool,
    ) -> Relations:
        marks = [name for name in files["annotations"] if name.split("/")[1] == REVIEWER]
        return Relations(
            annotations=self._scan(connection, "annotations", files["annotations"], alike),
            verdicts=self._scan(connection, "verdicts", files["verdicts"], alike),
            failures=self._scan(connection, "failures", files["failures"], alike),
            images=self._images(connection, files["images"], alike, with_bytes),
            marks=self._scan(connection, "annotations", marks, alike),
        )

    def _scan(
        self, connection: duckdb.DuckDBPyConnection, table: str, names: list[str], alike: bool, more: str = ""
    ) -> str:
        """Some files as a relation. Where their columns may differ, those that lack one have nulls."""
        schema, store = _SCHEMAS[table], self.dataset.store
        if names and store.local:
            paths = ", ".join(f"'{store.path(name).replace(chr(39), chr(39) * 2)}'" for name in names)
            read = f"read_parquet([{paths}]{more}"
            if alike:
                return f"{read})"
            return f"(FROM {_none(connection, table)} UNION ALL BY NAME FROM {read}, union_by_name = true))"
        if not names:
            return _none(connection, table)
        name = f"_{table}_{len(names)}_{names[0].replace('/', '_')}"
        paths_there = [store.path(n) for n in names]
        connection.register(
            name, pads.dataset(paths_there, schema=schema, filesystem=store.filesystem, format="parquet")
        )
        return f'"{name}"'

    def _images(
        self, connection: duckdb.DuckDBPyConnection, names: list[str], alike: bool, with_bytes: bool
    ) -> str:
        wanted = [name for name in IMAGES.names if with_bytes or name != "bytes"]
        columns = ", ".join(f'"{name}"' for name in wanted)
        if not names:
            return f"(SELECT {columns}, '' AS shard, 0 AS row FROM {_none(connection, 'images')})"
        if self.dataset.store.local:
            scan = self._scan(connection, "images", names, alike, ", filename = true, file_row_number = true")
            place = r"regexp_extract(filename, '(\d+)\.parquet$', 1) AS shard, file_row_number AS row"
            return f"(SELECT {columns}, {place} FROM {scan})"
        tables = []
        for name in names:
            table = read_table(self.dataset.store, name, wanted)
            table = table.append_column("shard", pa.repeat(PurePosixPath(name).stem, len(table)))
            tables.append(table.append_column("row", pa.array(range(len(table)), pa.int64())))
        connection.register("_images", pa.concat_tables(tables))
        return "_images"

    def _set_aside(self, files: dict[str, list[str]]) -> bool:
        """Whether any of the files cannot be read; such are not asked again."""
        found = False
        for name in (name for names in files.values() for name in names):
            why = unreadable(self.dataset, name)
            if why is not None:
                self.set_aside(name, why)
                found = True
        return found


def unreadable(dataset: Dataset, name: str, whole: bool = True) -> str | None:
    """Why a shard cannot be used, by its footer alone or by all of it; None where it can."""
    try:
        provenance = read_provenance(dataset.store, name)
        if whole or provenance is None:
            read_table(dataset.store, name)
    except (DatasetError, OSError) as error:
        return error.message if isinstance(error, FdeError) else " ".join(str(error).split())
    except FdeError as error:
        return error.message
    if provenance is not None and provenance.get("format", FORMAT_VERSION) > FORMAT_VERSION:
        return f"it has format {provenance['format']}; this version reads up to {FORMAT_VERSION}"
    return None


def _none(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    name = f"_no_{table}"
    connection.register(name, _SCHEMAS[table].empty_table())
    return name


def _fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any], seconds: float
) -> pa.Table:
    done = threading.Event()

    def stop() -> None:
        wait = seconds
        while not done.wait(wait):
            connection.interrupt()
            wait = _AGAIN_SECONDS

    stopper = threading.Thread(target=stop, name="query limit", daemon=True)
    stopper.start()
    try:
        return connection.sql(sql, params=list(parameters)).to_arrow_table()
    finally:
        done.set()
        stopper.join()  # before the connection is closed


def _one_line(error: duckdb.Error, seconds: float) -> tuple[str, str]:
    if isinstance(error, duckdb.InterruptException):
        return f"stopped after {seconds:g} s", "narrow the search, or ask with: fde sql"
    return one_line(error)[:500], "the columns are those of a statement: docs/viewer.md"
