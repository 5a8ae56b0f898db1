"""Reports: queries over a data set whose rows are its figures (data_engine/qa/reports, one per file).

    with connect(dataset, survey=survey(dataset)) as connection:
        table = run_report(connection, "table2")

Reports are about the view `statements`: what a connection's scope (data_engine.qa.scope) lets count.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from data_engine.errors import QueryError
from data_engine.qa.queries import Query, built_in
from data_engine.query import run


def report_names() -> list[str]:
    return list(built_in("reports"))


def find_report(name: str) -> Query:
    """A built-in report. Raises QueryError when there is none of that name."""
    found = built_in("reports")
    if name not in found:
        raise QueryError(f"there is no report {name!r}", f"reports: {', '.join(found)}")
    return found[name]


def run_report(connection: duckdb.DuckDBPyConnection, report: str | Query) -> pa.Table:
    """A report's rows; `report` is a built-in one's name, or a query. Raises QueryError."""
    query = find_report(report) if isinstance(report, str) else report
    return run(connection, query.sql).read_all()
