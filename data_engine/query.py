"""SQL over a data set, in DuckDB: read-only, and with no way out of the data set's own folder.

Views: `images`, `annotations`, `verdicts`, `failures` and `runs` are the stored tables; `texts`, `regions`,
`triplets`, `masks`, `scores`, `members`, `changes`, `conflicts` and `elements` (data_engine/qa/views/*.sql) are
made of them. `statements` are the annotations that count: what the last round of verdicts kept, or what a
scope says (data_engine.qa.scope); `said` and `said_boxes` are made of those. data_engine/qa/macros.sql has
functions of boxes and texts.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from contextlib import suppress
from functools import partial
from importlib.resources import files

import duckdb
import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.errors import QueryError
from data_engine.qa.scope import Scope, find_scope
from data_engine.qa.stored import glob_of, stored_views, surveyed_views
from data_engine.qa.survey import SCHEMAS, Survey
from data_engine.query_errors import query_errors, without_column
from data_engine.query_thread import attended, streamed

_DERIVED = ("texts", "masks", "regions", "scores", "triplets", "members", "changes", "conflicts", "elements")
_COUNTED = ("said", "said_boxes")
VIEWS = (*SCHEMAS, *_DERIVED, "statements", *_COUNTED)


def connect(
    dataset: Dataset,
    memory_limit: str | None = None,
    *,
    scope: Scope | None = None,
    survey: Survey | None = None,
) -> duckdb.DuckDBPyConnection:
    """A connection that has the views, and from which nothing but the data set can be reached.

    `scope` says what `statements` holds, by default what the last round of verdicts kept. With a `survey` of
    the data set's files, the views leave out what is damaged, read shards that lack a column, and there is a
    view `shards`; without, all files are taken to be sound. `run` also refuses what is no query.

    Raises DamagedError where a file cannot be read.
    """
    connection = locked(dataset, memory_limit)
    try:
        with query_errors():
            _make_views(connection, dataset, scope or find_scope(dataset), survey)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_views(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, scope: Scope, survey: Survey | None
) -> None:
    if survey is None:
        stored_views(connection, dataset)
    else:
        for tables in SCHEMAS:
            surveyed_views(connection, dataset, tables, survey.of(tables))
        connection.register("shards", survey.table())
    for name in _DERIVED:
        connection.execute(f"CREATE VIEW {name} AS {_view(name)}")
    for name, select in scope.views().items():
        # What every report asks for again is held; it is small beside the statements.
        held = survey is not None and name != "statements"
        made = f"CREATE {'TABLE' if held else 'VIEW'} {name} AS {select}"
        attended(connection, partial(connection.execute, made))
    for name in _COUNTED:
        connection.execute(f"CREATE VIEW {name} AS {_view(name)}")


def _view(name: str) -> str:
    return (files("data_engine.qa") / "views" / f"{name}.sql").read_text()


def locked(dataset: Dataset, memory_limit: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection with the functions of boxes and without views, that opens no file yet.

    Configuration is locked, extensions cannot be loaded, and files outside the data set's folder (and on
    the network) are refused by DuckDB itself.
    """
    connection = duckdb.connect(":memory:")
    if memory_limit:
        try:
            connection.execute("SET memory_limit = ?", [memory_limit])
        except duckdb.Error as error:
            raise QueryError(f"{memory_limit!r} is no amount of memory", "give one like 4GB") from error
    # One of its own: two processes would write into each other's files there, and could read them.
    scratch = f"{tempfile.gettempdir()}/fde-duckdb-{uuid.uuid4().hex}"
    connection.execute("SET temp_directory = ?", [scratch])
    connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET python_enable_replacements = false")  # a table is no variable of this process
    connection.execute((files("data_engine.qa") / "macros.sql").read_text())
    if dataset.store.local:
        # DuckDB holds a pattern against the list as it is written, and then each file that it finds.
        folders = [dataset.store.root + "/", glob_of(dataset.store.root) + "/"]
        connection.execute("SET allowed_directories = ?", [folders])
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.RecordBatchReader:
    """One query's rows, streamed. Raises QueryError for wrong SQL and for anything that is no query, and
    DamagedError where a file cannot be read; so does the stream."""
    hint = f"views: {', '.join(VIEWS)}; DESCRIBE lists a view's columns"
    with query_errors(hint):
        statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise QueryError(
            "only one SELECT (or DESCRIBE, SUMMARIZE, SHOW) can be run",
            f"the data set is read-only here; views: {', '.join(VIEWS)}",
        )
    # DuckDB also calls `WITH x AS (COPY ... TO 'file') SELECT ...` a SELECT, and runs it. It refuses
    # statements that write anywhere but at the top level, so nothing a person types may stand there.
    asked = f"SELECT * FROM (\n{_without_semicolon(sql)}\n)"
    try:
        return streamed(connection, lambda: connection.sql(asked).to_arrow_reader(65_536), hint)
    except QueryError as error:
        if not without_column(error.message):
            raise
        raise QueryError(error.message, _columns(connection, sql) or hint) from error


def _columns(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The columns of the views that a query names; empty where it names none."""
    words = set(re.findall(r"\w+", sql.lower()))
    told = []
    for name in VIEWS:
        if name in words:
            # Where a file cannot be read, what is wrong with the query is told all the same.
            with suppress(duckdb.Error):
                columns = connection.sql(f"DESCRIBE {name}").fetchall()
                told.append(f"{name} has {', '.join(column[0] for column in columns)}")
    return "; ".join(told)


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
