"""QA of a data set: all checks, the reports beside FLD-5B's figures, and what it is held against."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.errors import ChecksError, DamagedError, QueryError
from data_engine.fingerprint import specialist_fingerprints
from data_engine.qa.checks import CheckResult, run_checks
from data_engine.qa.compare import beside
from data_engine.qa.queries import Query, built_in, of_folder
from data_engine.qa.reports import run_report
from data_engine.qa.scope import Scope
from data_engine.qa.session import Session, open_session
from data_engine.qa.survey import Depth
from data_engine.recipe import Recipe
from pipelines.qa_truth import TruthFigure, truth_figures


@dataclass
class Findings:
    """What `fde qa` found. `reports` that could not be run have an error in place of rows.

    `compared` holds, by report, the figures that differ from those of `against`.
    """

    dataset: str
    scope: str
    checks: list[CheckResult]
    reports: dict[str, tuple[Query, pa.Table | str]]
    against: str | None = None
    compared: dict[str, pa.Table] = field(default_factory=dict)
    truth: list[TruthFigure] = field(default_factory=list)

    @property
    def failed(self) -> list[CheckResult]:
        return [check for check in self.checks if not check.passed]

    def raise_if_failed(self) -> None:
        """Raises ChecksError when a check found something, or could not be run."""
        if self.failed:
            names = ", ".join(f"{c.query.name} ({c.error or f'{c.rows:,}'})" for c in self.failed)
            raise ChecksError(
                f"{len(self.failed)} of {len(self.checks)} checks failed: {names}",
                "docs/qa.md says what each means and what to do",
            )


def qa(
    dataset: Dataset,
    scope: Scope,
    *,
    folders: Sequence[Path] = (),
    against: tuple[Dataset, Scope] | None = None,
    truth: str | None = None,
    recipe: Recipe | None = None,
    memory_limit: str | None = None,
    checksums: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Run all checks and reports, the built-in ones and those of `folders`; `recipe` is what the data set should
    be of; with `checksums` every file is read to its end first. Raises QueryError for folders without SQL,
    DatasetError for a truth that is not there.

    Where a file turns out to be damaged behind its footer, all files are read, and it starts again without those.
    """
    checks, reports = built_in("checks"), built_in("reports")
    for folder in folders:
        own = of_folder(folder)
        checks, reports = checks | own["checks"], reports | own["reports"]
    wanted = None if recipe is None else specialist_fingerprints(recipe, dataset)

    def look(depth: Depth) -> Findings:
        with _opened(dataset, scope, say, memory_limit=memory_limit, wanted=wanted, depth=depth) as session:
            say(f"{len(checks)} checks")
            checked = run_checks(session, checks.values())
            found = Findings(dataset.url, str(scope), checked, _reports(session, reports, say))
            if truth is not None:
                say(f"against {truth}")
                found.truth = list(truth_figures(session, truth))
        if against is not None:
            with _opened(*against, say, memory_limit=memory_limit, depth=depth) as other:
                found.against = f"{against[0].url} ({against[1]})"
                found.compared = _compared(found.reports, _reports(other, reports, say))
        return found

    try:
        return look("all" if checksums else "footers")
    except DamagedError as error:
        say(f"{error.message}; again, without what cannot be read")
        return look("rows")


@contextmanager
def _opened(
    dataset: Dataset, scope: Scope, say: Callable[[str], None], *, depth: Depth, **settings: Any
) -> Iterator[Session]:
    say(f"{'surveying' if depth == 'footers' else 'reading'} {dataset.url}")
    session = open_session(dataset, scope, depth=depth, **settings)
    try:
        yield session
    finally:
        session.close()


def _reports(
    session: Session, reports: Mapping[str, Query], say: Callable[[str], None]
) -> dict[str, tuple[Query, pa.Table | str]]:
    found: dict[str, tuple[Query, pa.Table | str]] = {}
    for name, report in reports.items():
        say(f"report {name}")
        try:
            found[name] = report, run_report(session.connection, report)
        except (QueryError, DamagedError) as error:
            if isinstance(error, DamagedError) and session.depth == "footers":
                raise
            found[name] = report, error.message
    return found


def _compared(
    this: Mapping[str, tuple[Query, pa.Table | str]], other: Mapping[str, tuple[Query, pa.Table | str]]
) -> dict[str, pa.Table]:
    found = {}
    for name, (report, table) in this.items():
        theirs = other[name][1]
        if isinstance(table, pa.Table) and isinstance(theirs, pa.Table):
            rows = beside(report, table, theirs)
            if rows.num_rows:
                found[name] = rows
    return found


def as_json(found: Findings) -> str:
    """All of it as one JSON object."""
    return json.dumps(
        {
            "dataset": found.dataset,
            "scope": found.scope,
            "checks": {check.query.name: _check(check) for check in found.checks},
            "reports": {name: _report(*each) for name, each in found.reports.items()},
            "truth": [vars(figure) for figure in found.truth],
            "against": found.against,
            "compared": {name: rows.to_pylist() for name, rows in found.compared.items()},
        },
        ensure_ascii=False,
        default=str,
    )


def _check(check: CheckResult) -> dict[str, Any]:
    sample = [] if check.sample is None else check.sample.to_pylist()
    return {
        "title": check.query.title,
        "passed": check.passed,
        "rows": check.rows,
        "sample": sample,
        "error": check.error,
    }


def _report(report: Query, table: pa.Table | str) -> dict[str, Any]:
    said = {"title": report.title, "description": report.description}
    return said | ({"error": table} if isinstance(table, str) else {"rows": table.to_pylist()})
