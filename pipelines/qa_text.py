"""What `fde qa` found, for a person at a terminal."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from rich.console import Console

from data_engine.qa.queries import built_in
from data_engine.query_output import print_table
from data_engine.wording import counted
from pipelines.qa import Findings

PRINTED = (
    "overview", "absent", "table2", "table3", "table1", "sources", "funnel", "kept", "changed", "refinement",
    "merged", "composition", "failures",
)  # fmt: skip
"""Reports that are shown, in this order; the others are for plots, and in the JSON."""

_PAPER = "fld5b_"
_ROWS_SHOWN = 5


def print_findings(found: Findings, console: Console) -> None:
    """The tables, what differs from another data set, what failed with some of its rows, and a last line that counts."""

    def line(text: str) -> None:
        console.print(text, markup=False)

    line(f"{found.dataset}: {found.scope}")
    # A person's own reports are there to be seen.
    own = [name for name in found.reports if name not in built_in("reports")]
    for name in (*PRINTED, *own):
        report, table = found.reports[name]
        if isinstance(table, str):
            line(f"\n{report.title}: {table}")
        elif table.num_rows:
            shown = beside_paper(table)
            line(f"\n{report.title}{' (ours / FLD-5B)' if shown is not table else ''}")
            print_table(shown.to_reader(), console)
    if found.truth:
        line("\nWhat counts of each source, against people's labels")
        print_table(pa.Table.from_pylist([vars(figure) for figure in found.truth]).to_reader(), console)
    for name, rows in found.compared.items():
        if name in (*PRINTED, *own):
            line(f"\n{found.reports[name][0].title}: what differs from {found.against}")
            print_table(rows.to_reader(), console)
    for check in found.failed:
        line(
            f"\nfailed: {check.query.title} ({check.query.name}): {check.error or counted(check.rows, 'row')}"
        )
        if check.sample is not None:
            print_table(check.sample.slice(0, _ROWS_SHOWN).to_reader(), console)
    line(f"\n{len(found.checks) - len(found.failed)} of {len(found.checks)} checks passed")


def beside_paper(table: pa.Table) -> pa.Table:
    """A table with each figure of the paper in the cell of ours, as `ours / FLD-5B's`; others as they are."""
    if not any(name.startswith(_PAPER) for name in table.column_names):
        return table
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if name.startswith(_PAPER):
            continue
        paper = _PAPER + name
        if paper in table.column_names:
            pairs = zip(table[name].to_pylist(), table[paper].to_pylist(), strict=True)
            columns[name.replace("_", " ")] = pa.array([_pair(*pair) for pair in pairs], pa.string())
        else:
            columns[name.replace("_", " ")] = table[name]
    return pa.table(columns)


def _pair(ours: Any, paper: Any) -> str:
    if paper is None:
        return "" if ours is None else _short(ours)
    return f"{'-' if ours is None else _short(ours)} / {_short(paper)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value / 1e6:.0f}M" if value >= 10_000_000 else f"{value:,}"
