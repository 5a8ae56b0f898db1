"""DuckDB as a place to sort and join more rows than memory holds."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from data_engine.errors import StorageError

MEMORY = "2GB"
"""What DuckDB may keep in memory before it spills to disk."""

_THREADS = 8
"""More would each get too little of that memory to sort in."""


@contextlib.contextmanager
def scratch(folder: Path | None = None, threads: int = 2) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that is gone afterwards. It spills into `folder`, else into the system's own.

    Raises StorageError where it cannot.
    """
    if folder is None:
        place = Path(tempfile.mkdtemp(prefix="fde-"))
    else:
        place = folder / f"duckdb-{uuid.uuid4().hex}"
        place.mkdir(parents=True)
    try:
        settings: dict[str, Any] = {
            "memory_limit": MEMORY,
            "temp_directory": str(place),
            "threads": min(threads, _THREADS),
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            yield connection
    except duckdb.OperationalError as error:  # its disk or its memory, and no mistake in a query
        raise StorageError(
            f"cannot sort in {place}: {' '.join(str(error).split())[:300]}",
            "check that its disk has space, then run the same command again: what is done is kept",
        ) from error
    except RuntimeError as error:
        if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C, where it hears of it
            raise KeyboardInterrupt from error
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def rows_of(db: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[Any, ...]]:
    """A query's rows, a thousand at a time."""
    cursor = db.cursor().execute(query)
    while rows := cursor.fetchmany(1000):
        yield from rows


class Inserts:
    """Rows on their way into a table, ten thousand at a time."""

    def __init__(self, db: duckdb.DuckDBPyConnection, table: str, columns: dict[str, pa.DataType]) -> None:
        self.db = db
        self.table = table
        self.schema = pa.schema(columns)
        self.rows: list[tuple[Any, ...]] = []
        empty = self.schema.empty_table()
        db.register("rows", empty)
        db.execute(f"CREATE TABLE {table} AS SELECT * FROM rows")  # noqa: S608 - our own names

    def add(self, *row: Any) -> None:
        self.rows.append(row)
        if len(self.rows) == 10_000:
            self.flush()

    def flush(self) -> None:
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.schema)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        self.db.register("rows", pa.table(arrays, schema=self.schema))
        self.db.execute(f"INSERT INTO {self.table} SELECT * FROM rows")  # noqa: S608 - our own names
        self.rows.clear()
