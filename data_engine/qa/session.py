"""A data set opened to be looked at as a whole: its files surveyed, and what queries about them ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import duckdb
import pyarrow as pa
import pyarrow.fs

from data_engine.dataset import Dataset
from data_engine.errors import StorageError
from data_engine.qa.scope import Scope, find_scope
from data_engine.qa.stored import surveyed_views
from data_engine.qa.survey import Depth, Survey, survey
from data_engine.query import connect, run
from data_engine.query_thread import attended
from data_engine.storage import resolve

_BY_SHARD = ("images", "annotations", "verdicts")

GROUP_ROWS = 2_000_000
"""Annotations of the shards that are looked at together: their ids fit the processor's memory many times over."""

_FILES = 200
"""Files of images of which it is asked whether they are still there: on an object store each takes a while."""

_SOME_URIS = f"""
    SELECT DISTINCT uri FROM (SELECT uri FROM images WHERE uri IS NOT NULL USING SAMPLE reservoir(5000 ROWS) REPEATABLE (0))
    ORDER BY hash(uri), uri LIMIT {_FILES}
"""


@dataclass(frozen=True)
class Session:
    """A connection with all views, and beside them the tables

    - `shards`: every file, and every one that is missing (data_engine.qa.survey)
    - `dataset`: `dataset.json`, one row
    - `judged`: `round` and `source` of what has verdicts
    - `image_files`: `uri` and `there` of some of the files that hold the images

    `depth` is the survey's: where it read every row, what cannot be read is no file's damage that it could leave out.
    """

    dataset: Dataset
    scope: Scope
    survey: Survey
    connection: duckdb.DuckDBPyConnection
    depth: Depth = "footers"

    def close(self) -> None:
        self.connection.close()

    def groups(self) -> Iterator[None]:
        """Step through the shards, a few at a time: meanwhile the stored tables hold those alone."""
        try:
            for names in _groups(self.survey):
                self._narrow(names)
                yield
        finally:
            self._narrow(None)

    def _narrow(self, names: set[str] | None) -> None:
        for tables in _BY_SHARD:
            files = [file for file in self.survey.of(tables) if names is None or file.shard in names]
            surveyed_views(self.connection, self.dataset, tables, files)


def open_session(
    dataset: Dataset,
    scope: Scope | None = None,
    *,
    memory_limit: str | None = None,
    wanted: Mapping[str, str] | None = None,
    depth: Depth = "footers",
) -> Session:
    """Survey a data set and open it. `scope` is by default what the last round kept; `wanted` and `depth` as in
    `survey`. Raises DamagedError where a file cannot be read that the survey took to be sound."""
    scope = scope or find_scope(dataset)
    surveyed = survey(dataset, wanted, depth=depth)
    connection = connect(dataset, memory_limit, scope=scope, survey=surveyed)
    connection.register("dataset", pa.Table.from_pylist([asdict(dataset.info)]))
    judged = "CREATE TABLE judged AS SELECT DISTINCT round, source FROM verdicts"
    attended(connection, partial(connection.execute, judged))
    uris = run(connection, _SOME_URIS).read_all()["uri"].to_pylist()
    connection.register("image_files", _there(uris))
    return Session(dataset, scope, surveyed, connection, depth)


def _groups(surveyed: Survey) -> Iterator[set[str]]:
    rows: dict[str, int] = {}
    for tables in _BY_SHARD:
        for file in surveyed.of(tables):
            rows[file.shard] = rows.get(file.shard, 0) + (tables == "annotations") * (file.rows or 0)
    names: set[str] = set()
    total = 0
    for shard in sorted(rows):
        names.add(shard)
        total += rows[shard]
        if total >= GROUP_ROWS:
            yield names
            names, total = set(), 0
    if names:
        yield names


def _there(uris: list[str]) -> pa.Table:
    """Whether each file is there; null where its store cannot be asked."""
    found: list[bool | None] = []
    for uri in uris:
        try:
            filesystem, path = resolve(uri)
            found.append(filesystem.get_file_info(path).type != pa.fs.FileType.NotFound)
        except (OSError, StorageError, ValueError):
            found.append(None)
    return pa.table({"uri": pa.array(uris, pa.string()), "there": pa.array(found, pa.bool_())})
