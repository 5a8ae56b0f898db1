"""Arrow tables as cells of text: our figures, beside them the paper's, and how many rows there are in all."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_engine.query_output import printable

PAPER = "fld5b_"
"""What the names of columns begin with that hold the paper's figures."""

ROWS = 40
"""Rows of one table that are shown."""

_LONGEST = 160
"""Characters of one cell that are shown."""

_MANY = 10_000_000


@dataclass(frozen=True)
class Cell:
    """`paper` is FLD-5B's figure, where it has one for this cell."""

    text: str
    paper: str | None = None


@dataclass(frozen=True)
class Column:
    name: str
    number: bool


@dataclass(frozen=True)
class Grid:
    """What a table in the page holds; `rows_in_all` counts those that are left out too."""

    columns: list[Column]
    rows: list[list[Cell]]
    rows_in_all: int
    has_paper: bool

    @property
    def left_out(self) -> int:
        return self.rows_in_all - len(self.rows)


def grid(table: pa.Table, limit: int = ROWS) -> Grid:
    """The first `limit` rows. A column of the paper's (`fld5b_...`) goes into the cells of ours of that name."""
    shown = table.slice(0, limit)
    ours = [name for name in table.column_names if not name.startswith(PAPER)]
    papers = {name: PAPER + name for name in ours if PAPER + name in table.column_names}
    values = {name: shown[name].to_pylist() for name in (*ours, *papers.values())}
    rows = []
    for number in range(shown.num_rows):
        cells = []
        for name in ours:
            paper = values[papers[name]][number] if name in papers else None
            cells.append(Cell(shown_as(values[name][number]), None if paper is None else shown_as(paper)))
        rows.append(cells)
    columns = [Column(name.replace("_", " "), _is_number(table.schema.field(name).type)) for name in ours]
    return Grid(columns, rows, table.num_rows, bool(papers))


def shown_as(value: Any) -> str:
    """A value as a person reads it; a long text is cut, with its length."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value / 1e6:,.0f} M" if abs(value) >= _MANY else f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
    if isinstance(value, datetime.datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    text = printable(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))
