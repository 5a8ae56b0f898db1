"""DuckDB's errors as this project's own: the SQL is wrong, or a file that it reads cannot be read.

A file may be damaged behind a sound footer (a bad disk, an upload that was cut and filled up), which shows only while
its pages are read: at the first rows of an answer, or in its middle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from data_engine.errors import DamagedError, FdeError, QueryError

_KIND = re.compile(r"[A-Z][A-Za-z ]* Error: ")
"""How DuckDB begins a message, except those of its Parquet reader about the insides of a file."""

_NO_COLUMN = re.compile(r"Binder Error: .*\bcolumn\b", re.IGNORECASE)

_OF_THE_READER = "Invalid Error: "
"""How it begins those too, where they end a stream."""

_OF_FILES = ("IO Error: ", "Invalid Input Error: ")
"""Kinds that a query's own mistakes share with files that cannot be read."""

_FILE_SIGNS = (".parquet", "reading the stream registered as")
"""What the message of such a kind holds where a file is meant: its name, or that of a table that Arrow reads."""


def of_files(message: str) -> bool:
    """Whether DuckDB says that a file cannot be read, rather than that a query is wrong."""
    kind = _KIND.match(message)
    if kind is None or kind[0] == _OF_THE_READER:
        return True
    return kind[0] in _OF_FILES and any(sign in message.lower() for sign in _FILE_SIGNS)


def one_line(error: Exception) -> str:
    """The first paragraph of DuckDB's message; further ones quote the query."""
    return " ".join(str(error).split("\n\n")[0].split())


def without_column(message: str) -> bool:
    """Whether DuckDB says that a column is not there."""
    return bool(_NO_COLUMN.match(message))


def query_error(error: Exception, hint: str) -> FdeError:
    """What an error of DuckDB, or of a stream of its rows, says here; `hint` is for wrong SQL."""
    if of_files(str(error)):
        return DamagedError(
            f"a stored file cannot be read: {one_line(error)}",
            "`fde qa DATASET` finds which: delete it and run its stage again, only it is made anew",
        )
    return QueryError(one_line(error), hint)


@contextmanager
def query_errors(hint: str = "") -> Iterator[None]:
    """Raises DamagedError or QueryError for what DuckDB, or a stream of its rows, raises in the block."""
    try:
        yield
    except (
        duckdb.Error,
        pa.ArrowException,
        UnicodeDecodeError,
    ) as error:  # the last: a message with a file's bytes in it
        raise query_error(error, hint) from error
    except OSError as error:  # what a stream makes of an error of DuckDB's has no number; a disk's has
        if error.errno is not None:
            raise
        raise query_error(error, hint) from error
