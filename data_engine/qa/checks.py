"""Checks: queries that select rows that are wrong (data_engine/qa/checks, one per file). None means pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from data_engine.errors import DamagedError, QueryError
from data_engine.qa.queries import Query, built_in
from data_engine.qa.session import Session
from data_engine.query import run

SAMPLE = 20
"""Offending rows that are kept; the others are counted."""


@dataclass
class CheckResult:
    """`rows` that a check selected and some of them; or the `error` of a check that could not be run."""

    query: Query
    rows: int = 0
    sample: pa.Table | None = None
    error: str | None = None
    _parts: list[pa.RecordBatch] = field(default_factory=list, repr=False)

    @property
    def passed(self) -> bool:
        return not self.rows and self.error is None


def check_names() -> list[str]:
    return list(built_in("checks"))


def run_checks(session: Session, checks: Iterable[Query] | None = None) -> list[CheckResult]:
    """Run checks, by default the built-in ones, in their order. One that cannot be run stops no other.

    Raises DamagedError for a file that is damaged behind its footer, where the session has not read all of them.
    """
    results = [CheckResult(check) for check in (built_in("checks").values() if checks is None else checks)]
    for result in results:
        if not result.query.by_shard:
            _run(session, result)
    by_shard = [result for result in results if result.query.by_shard]
    if by_shard:
        for _ in session.groups():
            for result in by_shard:
                _run(session, result)
    for result in results:
        if result._parts:
            result.sample = pa.Table.from_batches(result._parts)
            result._parts = []
    return results


def _run(session: Session, result: CheckResult) -> None:
    if result.error is not None:
        return
    try:
        for batch in run(session.connection, result.query.sql):
            missing = SAMPLE - min(result.rows, SAMPLE)
            if missing and batch.num_rows:
                result._parts.append(batch.slice(0, missing))
            result.rows += batch.num_rows
    except (QueryError, DamagedError) as error:
        if isinstance(error, DamagedError) and session.depth == "footers":
            raise
        result.error = error.message
