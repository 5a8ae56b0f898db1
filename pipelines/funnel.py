"""The funnel of a filtered data set as lines of text, with samples of what each filter dropped."""

from __future__ import annotations

from collections.abc import Iterator

from data_engine.dataset import Dataset
from data_engine.query import sql
from data_engine.query_output import printable
from data_engine.recipe import Recipe
from data_engine.verdicts import PARENT
from data_engine.wording import counted
from pipelines.filter import FilterSummary

_LONGEST = 60
"""Characters of a dropped text that are shown."""

_SAMPLES = """
    SELECT v.dropped_by, v.source, a.kind, coalesce(a.granularity, '') AS granularity, a.text, a.box, v.value
    FROM (
        SELECT annotation_id, source, dropped_by, value, "round",
            row_number() OVER (PARTITION BY dropped_by ORDER BY hash(annotation_id), annotation_id) AS place
        FROM verdicts WHERE NOT kept
    ) v JOIN annotations a USING (annotation_id)
    WHERE v.place <= {count} ORDER BY v.dropped_by, v.place
"""


def funnel(recipe: Recipe, summary: FilterSummary) -> Iterator[str]:
    """One line per filter in the recipe's order: dropped, and what was left after it."""
    left = summary.seen
    yield f"{counted(summary.seen, 'annotation')} of {counted(summary.images, 'image')}"
    for name in (*recipe.filters, PARENT):
        dropped = summary.dropped[name]
        if name == PARENT and not dropped:
            continue
        left -= dropped
        share = f" {100 * dropped / summary.seen:5.1f} %" if summary.seen else ""
        yield f"  dropped by {name}: {dropped:,}{share}, left {left:,}"
    yield f"  kept: {summary.kept:,}"
    if summary.bare:
        yield f"  images of which nothing is kept: {summary.bare:,}"


def samples(dataset: Dataset, recipe: Recipe, count: int = 5) -> Iterator[str]:
    """Some of what each filter dropped, always the same ones: where from, what it said, what was measured."""
    rows = sql(dataset, _SAMPLES.format(count=int(count))).to_pylist()
    for name in (*recipe.filters, PARENT):
        mine = [row for row in rows if row["dropped_by"] == name]
        if mine:
            yield f"{name}:"
        for row in mine:
            value = "" if row["value"] is None else f"  ({row['value']:.3g})"
            yield f"  {row['source']} {row['kind']} {row['granularity']}".rstrip() + f": {_shown(row)}{value}"


def _shown(row: dict[str, object]) -> str:
    if row["text"] is not None:
        text = printable(str(row["text"]))
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    if isinstance(row["box"], list):
        return "box " + " ".join(f"{value:.0f}" for value in row["box"])
    return "-"
