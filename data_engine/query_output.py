"""Rows for people (a table) and for programs (CSV, JSON lines, Parquet)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_engine.errors import QueryError
from data_engine.terminal_text import plain

Format = Literal["table", "csv", "json", "parquet"]

_OF_SUFFIX: dict[str, Format] = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

TABLE_ROWS = 40
_CELL = 60


def format_of_output(given: str | None, output: Path | None) -> Format:
    """The format by the name that was given, else by the suffix of the file that is to be written, else a table.

    A name that was given counts whatever the suffix. Raises QueryError for an unknown name or suffix, and for a table
    into a file: it is cut to what a person reads.
    """
    if given is None:
        if output is None:
            return "table"
        if output.suffix.lower() not in _OF_SUFFIX:
            known = ", ".join(_OF_SUFFIX)
            raise QueryError(f"{output} ends with none of {known}", "name it so, or give --format")
        return _OF_SUFFIX[output.suffix.lower()]
    match given:
        case "table" if output is not None:
            raise QueryError(
                "a table is no format of files", "leave out --output, or choose csv, json or parquet"
            )
        case "table" | "csv" | "json" | "parquet":
            return given
    raise QueryError(f"--format {given!r} is none of table, csv, json, parquet", "choose one of them")


def printable(value: Any) -> str:
    """A value on one line. Control characters from data are shown as escapes, never sent to a terminal."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, list) and all(isinstance(v, float) for v in value):
        text = "[" + ", ".join(f"{v:.1f}" for v in value) + "]"
    else:
        text = str(value)
    return plain(text)


def print_table(
    rows: pa.RecordBatchReader, console: Console, limit: int = TABLE_ROWS, *, whole: bool = False
) -> None:
    """The first `limit` rows as a table, and how many there are in all; `whole` cuts no cell, however wide it is."""
    shown: list[list[Any]] = []
    count = 0
    for batch in rows:
        if len(shown) < limit:
            columns = [column.to_pylist() for column in batch.slice(0, limit - len(shown)).columns]
            shown += [list(row) for row in zip(*columns, strict=True)]
        count += batch.num_rows
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for field in rows.schema:
        number = (
            pa.types.is_integer(field.type)
            or pa.types.is_floating(field.type)
            or pa.types.is_decimal(field.type)
        )
        table.add_column(
            Text(printable(field.name)),
            justify="right" if number else "left",
            overflow="ellipsis",
            no_wrap=True,
        )
    cells = [[printable(value) for value in row] for row in shown]
    for row in cells:
        table.add_row(
            *(Text(cell if whole or len(cell) <= _CELL else cell[: _CELL - 1] + "…") for cell in row)
        )
    if whole:
        heads = map(printable, rows.schema.names)
        widths = [max(map(cell_len, column)) for column in zip(heads, *cells, strict=True)]
        console.width = max(console.width, sum(width + 3 for width in widths))
    console.print(table)
    if count > len(shown):
        console.print(f"{len(shown)} of {count:,} rows; --format csv, json or parquet gives them all")


def write_rows(rows: pa.RecordBatchReader, stream: IO[bytes], format: Format) -> None:
    """All rows, batch by batch. JSON is one object per line; CSV holds nested values as JSON."""
    if format == "parquet":
        with pq.ParquetWriter(stream, rows.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)
    elif format == "csv":
        schema = pa.schema(
            [pa.field(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in rows.schema]
        )
        with pa.csv.CSVWriter(stream, schema) as writer:
            for batch in rows:
                writer.write_batch(_flat(batch, schema))
    else:
        for batch in rows:
            for row in batch.to_pylist():
                stream.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")


def _flat(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        pa.array(
            [
                None if v is None else json.dumps(v, ensure_ascii=False, default=str)
                for v in column.to_pylist()
            ],
            pa.string(),
        )
        if pa.types.is_nested(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
