"""One report on two data sets, or on two rounds of one: figure by figure."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from data_engine.qa.queries import Query

COMPARED = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("figure", pa.string()),
        pa.field("this", pa.float64()),
        pa.field("other", pa.float64()),
        pa.field("change", pa.float64()),
    ]
)


def beside(report: Query, this: pa.Table, other: pa.Table) -> pa.Table:
    """The figures of two results of a report that differ: a row for each, null where one result has none.

    Rows belong together where the report's key is the same. What the paper publishes is left out, as it is
    the same in both. A report without a key has nothing to go by, and gives no row.
    """
    ours, theirs = (_figures(report, table) for table in (this, other))
    rows = []
    for place in dict.fromkeys([*ours, *theirs]):
        a, b = ours.get(place), theirs.get(place)
        if a != b:
            change = None if a is None or b is None else a - b
            rows.append({"key": place[0], "figure": place[1], "this": a, "other": b, "change": change})
    return pa.Table.from_pylist(rows, schema=COMPARED)


def _figures(report: Query, table: pa.Table) -> dict[tuple[str, str], float]:
    numbers = [
        field.name
        for field in table.schema
        if (
            pa.types.is_integer(field.type)
            or pa.types.is_floating(field.type)
            or pa.types.is_decimal(field.type)
        )
        and field.name not in report.key
        and not field.name.startswith("fld5b_")
    ]
    found: dict[tuple[str, str], float] = {}
    if not report.key or not set(report.key) <= set(table.column_names):
        return found
    for row in table.to_pylist():
        key = " ".join(_word(row[name]) for name in report.key).strip()
        found |= {(key, name): float(row[name]) for name in numbers if row[name] is not None}
    return found


def _word(value: Any) -> str:
    return "" if value is None else str(value)
