"""Queries that Ctrl-C ends.

While DuckDB works in the main thread, Python hears of a signal only where DuckDB asks for it, and over long stretches
of a query it does not. So it works in another thread, and this one waits where a signal reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import duckdb
import pyarrow as pa

from data_engine.query_errors import query_errors

_T = TypeVar("_T")


def attended(connection: duckdb.DuckDBPyConnection, work: Callable[[], _T], hint: str = "") -> _T:
    """What `work` returns, which asks `connection` something. Raises what `query_errors` does."""
    with _thread() as pool:
        return _wait(connection, pool, work, hint)


def streamed(
    connection: duckdb.DuckDBPyConnection, work: Callable[[], pa.RecordBatchReader], hint: str = ""
) -> pa.RecordBatchReader:
    """The rows of the reader that `work` returns, fetched as they are asked for. Raises, here and while it is read,
    what `query_errors` does."""
    reader = attended(connection, work, hint)

    def batches() -> Iterator[pa.RecordBatch]:
        with _thread() as pool:
            while (batch := _wait(connection, pool, lambda: next(reader, None), hint)) is not None:
                yield batch

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "query")


def _wait(
    connection: duckdb.DuckDBPyConnection, pool: ThreadPoolExecutor, work: Callable[[], _T], hint: str
) -> _T:
    asked = pool.submit(work)
    try:
        with query_errors(hint):
            return asked.result()
    finally:
        if not asked.done():
            connection.interrupt()
            wait([asked])
