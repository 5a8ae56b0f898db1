"""Charts of the reports (data_engine/qa/reports), in altair: the same in a notebook and in `fde report`.

    with connect(Dataset.open("DATASET")) as connection:
        chart = plot("area", run_report(connection, "area"))

Each takes a report's rows. Without altair, importing this file raises MissingPackageError. Colours are chosen to stand out from white and from black alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

from data_engine.errors import MissingPackageError, QueryError
from data_engine.query_output import printable

try:
    import altair as alt
except ImportError as error:
    raise MissingPackageError.of(error.name or "altair", "report") from error

BLUE, ORANGE, GREEN, PURPLE = "#2f7fd6", "#d9642a", "#2a9d6f", "#a85cc9"
"""At least 3 to 1 against white and against the report's dark ground (WCAG 2, graphics)."""

MOST_SERIES = 12
"""Series of one chart: those with the most boxes or statements. `series_left_out` says how many more there are."""

MOST_FILTERS = 30

_WIDTH, _HEIGHT = 250, 64
_SMALL = 170
_LONGEST = 30
"""Characters of a label: as many as fit over a small panel."""

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Row = dict[str, Any]


def plot(report: str, rows: pa.Table) -> alt.TopLevelMixin:
    """The chart of a report by its name. Raises QueryError for one that has none."""
    if report not in PLOTS:
        raise QueryError(f"the report {report!r} has no chart", f"those that have: {', '.join(PLOTS)}")
    return PLOTS[report](rows)


def area(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `area`: sizes of boxes, a panel for each kind and granularity."""
    return _histogram(rows, _BOXES, "boxes", "side, as a share of the image's")


def aspect(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `aspect`: width to height of boxes, on a logarithmic axis on which 3:1 and 1:3 are equally far from 1:1."""
    chart = _histogram(rows, _BOXES, "boxes", "width to height")
    ratio = "datum.value < 0 ? '1:' + pow(2, -datum.value) : pow(2, datum.value) + ':1'"
    return _with_axis(chart, values=[-4, -2, 0, 2, 4], labelExpr=ratio)


def distances(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `distances`: how far boxes' centres lie from the image's."""
    return _histogram(rows, _BOXES, "boxes", "distance from the centre; 1 is a corner")


def scores(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `scores`: scores of each source's statements, a panel for each kind and granularity."""
    return _histogram(
        rows, ("source", "kind", "granularity"), "statements", "score", columns=4, domain=[0, 1]
    )


def centres(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `centres`: a heat map of boxes' centres for each kind and granularity, each relative to its fullest cell."""
    cells = _series(rows, _BOXES, "boxes")
    fullest: dict[str, int] = {}
    for cell in cells:
        fullest[cell["series"]] = max(fullest.get(cell["series"], 0), cell["boxes"])
    for cell in cells:
        cell |= {
            "density": cell["boxes"] / fullest[cell["series"]],
            "right": cell["x"] + 1,
            "below": cell["y"] + 1,
        }
    base = alt.Chart(alt.InlineData(values=cells), width=_SMALL, height=_SMALL)
    # Opacity, not lightness: more is what differs more from the ground, be that white or black.
    heat = base.mark_rect(color=BLUE).encode(
        x=alt.X("x:Q", title=None, axis=None, scale=alt.Scale(domain=[0, 16])),
        x2="right:Q",
        y=alt.Y("y:Q", title=None, axis=None, scale=alt.Scale(domain=[16, 0])),
        y2="below:Q",
        opacity=alt.Opacity("density:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.03, 1])),
        tooltip=["series:N", "x:Q", "y:Q", "boxes:Q"],
    )
    return _by_panel(heat, cells, 3)


def funnel(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `funnel`: what each filter dropped of what a round judged, and what was kept; a panel for each round."""
    judged = _records(rows.slice(0, MOST_FILTERS * MOST_SERIES))
    labels = _labels(list(dict.fromkeys(row["filter"] for row in judged)), 2 * _LONGEST)
    bars = [
        {**row, "filter": labels[row["filter"]], "series": f"round {row['round']}", "fate": "kept" if row["filter"] == "kept" else "dropped",
         "label": f"{row['statements']:,} ({row['percent']:.1f} %)"}
        for row in judged
    ]  # fmt: skip
    base = alt.Chart(alt.InlineData(values=bars)).encode(
        y=alt.Y("filter:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=0)),
        # Room behind 100 for what is written at the end of a bar.
        x=alt.X(
            "percent:Q",
            title="percent of the statements judged",
            scale=alt.Scale(domain=[0, 130], nice=False),
            axis=alt.Axis(values=[0, 20, 40, 60, 80, 100]),
        ),
    )
    colour = alt.Color(
        "fate:N", legend=None, scale=alt.Scale(domain=["dropped", "kept"], range=[ORANGE, GREEN])
    )
    mark = base.mark_bar(height={"band": 0.7}).encode(color=colour, tooltip=["filter:N", "label:N"])
    text = base.mark_text(align="left", dx=4).encode(text="label:N")
    chart = alt.LayerChart(layer=[mark, text]).properties(width=2 * _WIDTH, height={"step": 22})
    return _by_panel(chart, bars, 1, y="independent")


def kept(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `kept`: the share of each source's statements that each round of verdicts kept, a panel for each source."""
    bars = _series(rows, ("source",), "judged")
    base = alt.Chart(alt.InlineData(values=bars), width=_SMALL, height=90)
    mark = base.mark_bar(color=GREEN, size=22).encode(
        x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0)),
        y=alt.Y(
            "percent:Q", title="percent kept", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=3)
        ),
        tooltip=["source:N", "round:O", "judged:Q", "kept:Q", "percent:Q"],
    )
    return _by_panel(mark, bars, 4)


def refinement(rows: pa.Table) -> alt.TopLevelMixin:
    """Of `refinement`: each measure round by round, with its interval, of the labels begun with, of the student's and
    of what was merged; a panel for each measure, those that decide first."""
    points = []
    for row in _records(rows):
        subject, _, number = row["subject"].rpartition("-")
        name = row["measure"] + (" (decides)" if row["decides"] else "")
        points.append({**row, "series": name, "of": subject if number.isdecimal() else row["subject"]})
    base = alt.Chart(alt.InlineData(values=points), width=_SMALL, height=120)
    names = list(dict.fromkeys(point["of"] for point in points))
    legend = alt.Legend(orient="top", labelLimit=0)
    colour = alt.Color(
        "of:N", title=None, scale=alt.Scale(domain=names, range=_colours(len(names))), legend=legend
    )
    shape = alt.Shape("of:N", title=None, scale=alt.Scale(domain=names), legend=legend)
    x = alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("of:N", sort=names)
    value = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    whisker = base.mark_rule(strokeWidth=2).encode(x=x, xOffset=offset, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour)  # fmt: skip
    point = base.mark_point(filled=True, size=50, opacity=1).encode(
        x=x, xOffset=offset, y=value, color=colour, shape=shape,
        tooltip=["measure:N", "subject:N", "value:Q", "low:Q", "high:Q", "reason:N"],
    )  # fmt: skip
    chart = alt.LayerChart(layer=[whisker, point])
    return _by_panel(chart, points, 4, y="independent")


PLOTS: Mapping[str, Callable[[pa.Table], alt.TopLevelMixin]] = {
    "area": area,
    "aspect": aspect,
    "distances": distances,
    "centres": centres,
    "scores": scores,
    "funnel": funnel,
    "kept": kept,
    "refinement": refinement,
}
"""The chart of each report that has one."""

_BOXES = ("kind", "granularity")
_KEYS = {
    "area": (_BOXES, "boxes"), "aspect": (_BOXES, "boxes"), "distances": (_BOXES, "boxes"),
    "centres": (_BOXES, "boxes"), "scores": (("source", *_BOXES), "statements"), "kept": (("source",), "judged"),
}  # fmt: skip


def series_left_out(report: str, rows: pa.Table) -> int:
    """How many series of a report's rows its chart does not show."""
    if report not in _KEYS:
        return 0
    return max(0, len(_by_size(_records(rows), *_KEYS[report])) - MOST_SERIES)


def _histogram(
    rows: pa.Table,
    keys: Sequence[str],
    counted: str,
    title: str,
    columns: int = 1,
    domain: list[float] | None = None,
) -> alt.FacetChart:
    """Bars over a report's bins (`low` to `high`), as shares of their series, so that series can be compared."""
    bins = _series(rows, keys, counted)
    totals: dict[str, int] = {}
    for each in bins:
        totals[each["series"]] = totals.get(each["series"], 0) + each[counted]
    for each in bins:
        each |= {"percent": 100 * each[counted] / totals[each["series"]],
                 "low": float(each["low"]), "high": float(each["high"])}  # fmt: skip
    width = _WIDTH if columns == 1 else _SMALL
    bars = alt.Chart(alt.InlineData(values=bins), width=width, height=_HEIGHT).mark_rect(color=BLUE)
    encoded = bars.encode(
        x=alt.X("low:Q", title=title, scale=alt.Scale() if domain is None else alt.Scale(domain=domain)),
        x2="high:Q",
        y=alt.Y("percent:Q", title="percent", axis=alt.Axis(tickCount=3)),
        y2=alt.datum(0),
        tooltip=["series:N", "low:Q", "high:Q", f"{counted}:Q", "percent:Q"],
    )
    return _by_panel(encoded, bins, columns)


def _with_axis(chart: alt.FacetChart, **axis: Any) -> alt.FacetChart:
    chart.spec.encoding.x.axis = alt.Axis(**axis)
    return chart


def _by_panel(
    chart: alt.Chart | alt.LayerChart,
    rows: Sequence[Row],
    columns: int,
    y: Literal["shared", "independent"] = "shared",
) -> alt.FacetChart:
    """A panel for each `series`, in the order in which they come."""
    names = list(dict.fromkeys(row["series"] for row in rows))
    header = alt.Header(labelAnchor="start", labelFontWeight="bold", labelLimit=0)
    made: alt.FacetChart = chart.facet(
        facet=alt.Facet("series:N", title=None, sort=names, header=header), columns=columns
    ).resolve_scale(y=y)
    return made


def _series(rows: pa.Table, keys: Sequence[str], counted: str) -> list[Row]:
    """Rows with the label of their `series`, those of the largest series alone, in order of size."""
    all_rows = _records(rows)
    largest = _by_size(all_rows, keys, counted)[:MOST_SERIES]
    labels = _labels(largest, _LONGEST)
    place = {name: number for number, name in enumerate(largest)}
    some = [(name, row) for row in all_rows if (name := _name(row, keys)) in place]
    some.sort(key=lambda pair: place[pair[0]])
    return [{**row, "series": labels[name]} for name, row in some]


def _records(rows: pa.Table) -> list[Row]:
    """Rows as Vega can take them: JSON has no NaN, and characters that XML lacks end the process that draws an SVG."""
    return [{name: _sound(value) for name, value in row.items()} for row in rows.to_pylist()]


def _sound(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _NO_XML.sub("\ufffd", printable(value)) if isinstance(value, str) else value


def _by_size(rows: Sequence[Row], keys: Sequence[str], counted: str) -> list[str]:
    sizes: dict[str, int] = {}
    for row in rows:
        name = _name(row, keys)
        sizes[name] = sizes.get(name, 0) + row[counted]
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def _name(row: Row, keys: Sequence[str]) -> str:
    return " ".join(str(row[key]) for key in keys if row[key] not in (None, "")) or "(no name)"


def _labels(names: Sequence[str], longest: int) -> dict[str, str]:
    """Names short enough to stand in a chart, each another. Vega's own cut may fall into a character beyond 16
    bits, which then cannot be drawn; it is switched off by `labelLimit`."""
    labels: dict[str, str] = {}
    for name in names:
        label = name if len(name) <= longest else f"{name[: longest - 1]}…"
        labels[name] = label if label not in labels.values() else f"{label[: longest - 4]} {len(labels)}"
    return labels


def _colours(count: int) -> list[str]:
    some = (BLUE, ORANGE, GREEN, PURPLE)
    return [some[number % len(some)] for number in range(count)]
