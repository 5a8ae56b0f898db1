"""SQL over a data set, in DuckDB: read-only, and with no way out of the data set's own folder.

Views: `images`, `annotations`, `verdicts`, `failures` and `runs` are the stored tables; `texts`,
`regions`, `triplets`, `masks`, `scores`, `members` and `conflicts` (data_engine/qa/views/*.sql) are made
of them. `box_iou`, `box_area` and `box_shared` (data_engine/qa/macros.sql) are functions of boxes.
"""

from __future__ import annotations

import tempfile
from importlib.resources import files

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from data_engine.dataset import Dataset
from data_engine.errors import QueryError
from data_engine.schema import ANNOTATIONS, FAILURES, IMAGES, RUNS, VERDICTS

_STORED = {
    "images": IMAGES,
    "annotations": ANNOTATIONS,
    "verdicts": VERDICTS,
    "failures": FAILURES,
    "runs": RUNS,
}
_DERIVED = ("texts", "masks", "regions", "scores", "triplets", "members", "conflicts")
VIEWS = (*_STORED, *_DERIVED)


def connect(dataset: Dataset, memory_limit: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection that has the views, and from which nothing but the data set can be reached.

    `run` also refuses what is no query.
    """
    connection = locked(dataset, memory_limit)
    for name, schema in _STORED.items():
        _stored_view(connection, dataset, name, schema)
    for name in _DERIVED:
        sql = (files("data_engine.qa") / "views" / f"{name}.sql").read_text()
        connection.execute(f"CREATE VIEW {name} AS {sql}")
    return connection


def locked(dataset: Dataset, memory_limit: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with the functions of boxes and without views, that opens no file yet.

    Configuration is locked, extensions cannot be loaded, and files outside the data set's folder (and on
    the network) are refused by DuckDB itself.
    """
    connection = duckdb.connect(":memory:")
    if memory_limit:
        connection.execute(f"SET memory_limit = '{memory_limit}'")
    connection.execute("SET temp_directory = ?", [tempfile.gettempdir() + "/fde-duckdb"])
    connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    connection.execute((files("data_engine.qa") / "macros.sql").read_text())
    if dataset.store.local:
        # DuckDB holds a pattern against the list as it is written, and then each file that it finds.
        folders = [dataset.store.root + "/", _glob(dataset.store.root) + "/"]
        connection.execute("SET allowed_directories = ?", [folders])
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def _stored_view(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, name: str, schema: pa.Schema
) -> None:
    store = dataset.store
    if name in ("images", "runs"):
        shards, pattern = store.files(name), f"{name}/*.parquet"
    else:
        shards = [f"{folder}/{f}" for folder in store.folders(name) for f in store.files(f"{name}/{folder}")]
        pattern = f"{name}/*/*.parquet"
    # Embedded pictures are not for a terminal; everything else of the index is.
    columns = ", ".join(f'"{field.name}"' for field in schema if field.name != "bytes")
    if not shards:
        connection.register(f"_{name}", schema.empty_table())
        source = f"_{name}"
    elif store.local:
        source = f"read_parquet('{_literal(_glob(store.root) + '/' + pattern)}', union_by_name = false)"
    else:
        paths = [store.path(f"{name}/{shard}") for shard in shards]
        connection.register(
            f"_{name}", pads.dataset(paths, schema=schema, filesystem=store.filesystem, format="parquet")
        )
        source = f"_{name}"
    connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {source}")


def _glob(path: str) -> str:
    """A path as a glob pattern that matches itself alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _literal(text: str) -> str:
    return text.replace("'", "''")


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """One query's rows, streamed. Raises QueryError for wrong SQL and for anything that is no query."""
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise QueryError(
                "only one SELECT (or DESCRIBE, SUMMARIZE, SHOW) can be run",
                f"the data set is read-only here; views: {', '.join(VIEWS)}",
            )
        # DuckDB also calls `WITH x AS (COPY ... TO 'file') SELECT ...` a SELECT, and runs it. It refuses
        # statements that write anywhere but at the top level, so nothing a person types may stand there.
        return connection.sql(f"SELECT * FROM (\n{_without_semicolon(sql)}\n)").to_arrow_reader(65_536)
    except duckdb.Error as error:
        first = str(error).split("\n\n")[0].strip()
        raise QueryError(
            " ".join(first.split()), f"views: {', '.join(VIEWS)}; DESCRIBE lists a view's columns"
        ) from error


def _without_semicolon(sql: str) -> str:
    """One statement as it can stand in parentheses: cut at its semicolon, which no string or comment holds."""
    text = sql.encode()
    for offset, kind in duckdb.tokenize(sql):
        if kind == duckdb.token_type.operator and text[offset : offset + 1] == b";":
            return text[:offset].decode()
    return sql


def sql(dataset: Dataset, query: str) -> pa.Table:
    """All rows of one query over a data set."""
    with connect(dataset) as connection:
        return run(connection, query).read_all()
