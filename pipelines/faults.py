"""What a recipe's filters make of errors that are known: how much of what each drops is wrong, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.world import World
from data_engine.scenes.write import make_scenes
from data_engine.storage import storage_errors
from data_engine.verdicts import PARENT
from pipelines.annotate import Runner, annotate
from pipelines.filter import filter_dataset

NOISY, LABELS = "noisy", "noise"
"""What the sources of a recipe for this are called: the copy with errors, and what was done to it."""

_ROWS = """
    SELECT v.dropped_by, list_sort(coalesce(n.changes, [])) AS changes, count(*) AS rows
    FROM verdicts v LEFT JOIN (
        SELECT parent_id, list(text) AS changes FROM annotations
        WHERE source = 'noise' AND granularity = 'change' AND text <> 'reanchored' GROUP BY parent_id
    ) n ON n.parent_id = v.annotation_id
    WHERE v.source = 'noisy' GROUP BY ALL
"""


@dataclass(frozen=True)
class Finding:
    """One filter: how many rows it drops, the share of them that are wrong, and of each error that is on
    rows that it dropped the share of all such rows."""

    name: str
    dropped: int
    precision: float
    recall: dict[str, float]


def faults(
    folder: Path,
    recipe: Recipe,
    world: World,
    count: int,
    seed: int,
    *,
    reporter: Reporter,
    say: Callable[[str], None],
    runner: Runner = "auto",
) -> list[Finding]:
    """Draw scenes, annotate and filter them by a recipe with sources `noisy` and `noise`, and print the table.

    Running it again goes on where it stopped. Raises RecipeError for a recipe without those sources or without
    filters, and what drawing, ingest and annotate raise.
    """
    if not {NOISY, LABELS} <= set(recipe.specialists) or not recipe.filters:
        raise RecipeError(
            f"{recipe.name!r} has no specialists {NOISY!r} and {LABELS!r}, or no filters",
            "see the recipe faults: fde recipe show faults",
        )
    place = folder / f"faults-{world.name}-{count}-of-seed-{seed}"
    with storage_errors(str(place)):
        make_scenes(place / "scenes", count, seed, world=world)
    url = str(place / "dataset")
    ingest(str(place / "scenes"), url)
    dataset = Dataset.open(url)
    annotate(dataset, recipe, runner=runner, reporter=reporter)
    filter_dataset(dataset, recipe)
    found = findings(dataset, recipe)
    for line in table(found):
        say(line)
    return found


def findings(dataset: Dataset, recipe: Recipe) -> list[Finding]:
    """What the verdicts of a data set say of each filter, in the recipe's order, then what fell with a parent."""
    rows = sql(dataset, _ROWS).to_pylist()
    all_rows: dict[str, int] = {}
    for row in rows:
        for change in set(row["changes"]):
            all_rows[change] = all_rows.get(change, 0) + row["rows"]
    found = []
    for name in (*recipe.filters, PARENT):
        mine = [row for row in rows if row["dropped_by"] == name]
        dropped = sum(row["rows"] for row in mine)
        wrong = sum(row["rows"] for row in mine if row["changes"])
        caught: dict[str, int] = {}
        for row in mine:
            for change in set(row["changes"]):
                caught[change] = caught.get(change, 0) + row["rows"]
        recall = {change: number / all_rows[change] for change, number in sorted(caught.items())}
        found.append(Finding(name, dropped, wrong / dropped if dropped else 0.0, recall))
    clean = sum(row["rows"] for row in rows if not row["changes"])
    lost = sum(row["rows"] for row in rows if not row["changes"] and row["dropped_by"])
    everything = {
        change: sum(r["rows"] for r in rows if r["dropped_by"] and change in r["changes"]) / all_rows[change]
        for change in sorted(all_rows)
    }
    return [*found, Finding(f"all filters ({lost / max(clean, 1):.1%} of what is right lost)",
                            sum(r["rows"] for r in rows if r["dropped_by"]),
                            sum(r["rows"] for r in rows if r["dropped_by"] and r["changes"])
                            / max(1, sum(r["rows"] for r in rows if r["dropped_by"])), everything)]  # fmt: skip


def table(found: list[Finding]) -> Iterator[str]:
    """Lines: a filter, what it dropped, how much of that was wrong, and which errors it found."""
    yield "filter: rows dropped, share of them wrong; errors found, as shares of all of their kind"
    for one in found:
        caught = ", ".join(
            f"{change} {share:.2f}" for change, share in sorted(one.recall.items(), key=lambda c: -c[1])
        )
        yield f"  {one.name}: {one.dropped:,}, {one.precision:.2f}; {caught or '-'}"
