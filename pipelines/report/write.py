"""`fde report`: a data set's figures, checks, plots and some of its images as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine import __version__
from data_engine.dataset import Dataset
from data_engine.errors import FdeError
from data_engine.output_file import make_place, written
from data_engine.qa.checks import CheckResult
from data_engine.qa.plots import PLOTS, plot, series_left_out
from data_engine.qa.queries import Query
from data_engine.qa.scope import Scope
from data_engine.query_output import printable
from pipelines.qa import Findings, qa
from pipelines.report.drawing import svg
from pipelines.report.gallery import gallery
from pipelines.report.grids import Grid, grid, shown_as
from pipelines.report.page import render, trusted

TABLES = (
    "table2", "table3", "table1", "sources", "classes", "agreement", "merged", "composition", "changed",
    "refinement", "failures", "runs",
)  # fmt: skip
"""Reports that are shown as tables, in this order. Those with a chart have their figures below it."""

_ELSEWHERE = ("overview", "absent", *PLOTS)


@dataclass(frozen=True)
class Section:
    """One report in the page: its rows as a table, with a chart where it has one, or why there are none."""

    name: str
    title: str
    description: str
    grid: Grid | None = None
    svg: str | None = None
    left_out: int = 0
    error: str = ""


@dataclass(frozen=True)
class Check:
    """One check in the page, with some of the rows that it selected."""

    name: str
    title: str
    description: str
    passed: bool
    rows: int
    error: str | None
    sample: Grid | None


def write_report(
    dataset: Dataset,
    output: Path,
    scope: Scope,
    *,
    images: int = 24,
    folders: Sequence[Path] = (),
    truth: str | None = None,
    memory_limit: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Write the report to `output`, which is replaced in one step, and give back what the checks found.

    `folders` are of one's own SQL, `truth` a source of people's labels, as for `fde qa`. Raises StorageError
    where `output` cannot be written.
    """
    make_place(output)
    found = qa(dataset, scope, folders=folders, truth=truth, memory_limit=memory_limit, say=say)
    say(f"gallery of {images} images")
    page = report_page(dataset, found, scope, images)
    with written(output) as stream:
        stream.write(page.encode())
    return found


def report_page(dataset: Dataset, found: Findings, scope: Scope, images: int) -> str:
    """The report as HTML, of what `fde qa` found and of some images."""
    checks = [_check(result) for result in sorted(found.checks, key=lambda result: result.passed)]
    cards = list(gallery(dataset, scope, images))
    own = [name for name in found.reports if name not in (*TABLES, *_ELSEWHERE)]
    tables = [_table(name, *found.reports[name]) for name in (*own, *TABLES) if name in found.reports]
    if found.truth:
        rows = pa.Table.from_pylist([vars(figure) for figure in found.truth])
        tables.insert(
            0, Section("truth", "What counts of each source, against people's labels", "", grid(rows))
        )
    shown = f"{len(cards):,} of {dataset.info.images:,} images, spread over the data set; the same ones every time."
    return render(
        name=printable(dataset.url.rstrip("/").rsplit("/", 1)[-1] or dataset.url),
        lead=_lead(dataset, found),
        tiles=_tiles(found),
        absent=[(row["what"], row["means"]) for row in _rows(found, "absent")] + _untold(found),
        checks=checks,
        failed=[check for check in checks if not check.passed],
        tables=tables,
        plots=[_plot(name, *found.reports[name]) for name in PLOTS if name in found.reports],
        cards=cards,
        anything_dropped=any(shape.dropped for card in cards for shape in card.shapes)
        or any(text.dropped for card in cards for text in card.texts),
        gallery_note=shown,
        version=__version__,
    )


def _lead(dataset: Dataset, found: Findings) -> str:
    info = dataset.info
    labels = f", with the labels {', '.join(info.labels)}" if info.labels else ""
    where = "held in the data set" if info.embedded else "read where they lie"
    return printable(
        f"{info.images:,} images in {info.shards:,} shards, ingested from {info.source} ({info.source_format}), "
        f"{where}{labels}. The figures are about {found.scope}."
    )


def _tiles(found: Findings) -> list[tuple[str, str]]:
    return [(row["what"], shown_as(row["n"])) for row in _rows(found, "overview")]


def _rows(found: Findings, report: str) -> Iterator[Mapping[str, Any]]:
    table = found.reports[report][1]
    if isinstance(table, pa.Table):
        yield from table.to_pylist()


def _untold(found: Findings) -> list[tuple[str, str]]:
    """What the summary would have said, where those reports could not be run."""
    some = [found.reports[name] for name in ("overview", "absent")]
    return [
        (report.title, f"cannot be told: {printable(error)}")
        for report, error in some
        if isinstance(error, str)
    ]


def _check(result: CheckResult) -> Check:
    query = result.query
    sample = None if result.sample is None else grid(result.sample)
    return Check(query.name, query.title, query.description, result.passed, result.rows, result.error, sample)


def _table(name: str, report: Query, table: pa.Table | str) -> Section:
    if isinstance(table, str):
        return Section(name, report.title, report.description, error=printable(table))
    return Section(name, report.title, report.description, grid(table))


def _plot(name: str, report: Query, table: pa.Table | str) -> Section:
    made = _table(name, report, table)
    if isinstance(table, str) or not table.num_rows:
        return made
    try:
        drawn = svg(plot(name, table), f"plot-{name}", report.title)
    except FdeError as error:
        return Section(name, report.title, report.description, made.grid, error=error.message)
    left_out = series_left_out(name, table)
    return Section(name, report.title, report.description, made.grid, trusted(drawn), left_out)
