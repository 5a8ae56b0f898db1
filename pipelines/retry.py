"""Retry: images that a specialist could not use, and that may pass now, without redoing what went well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError
from data_engine.recipe import Recipe
from data_engine.retries import ask
from data_engine.runner.plan import make_plan
from data_engine.runner.progress import Reporter
from data_engine.shards import read_table
from data_engine.students import with_students
from pipelines.annotate import AnnotateSummary, Runner, annotate

MAY_PASS = (
    "missing", "unreadable", "out_of_memory", "killed_worker", "specialist_error", "no_answer", "empty_answer",
    "unfinished_answer",
)  # fmt: skip
"""Reasons of failures that another attempt may be without. The others say what an image or an answer is."""


@dataclass(frozen=True)
class RetrySummary:
    """Failures by specialist and reason before and after, of the reasons that were retried; shards made again.

    `run` is None where there was nothing to retry.
    """

    before: Counter[tuple[str, str]]
    after: Counter[tuple[str, str]]
    shards: int
    run: AnnotateSummary | None


def retry(
    dataset: Dataset,
    recipe: Recipe,
    *,
    reasons: Sequence[str] = MAY_PASS,
    specialists: Sequence[str] = (),
    runner: Runner = "auto",
    address: str | None = None,
    reporter: Reporter | None = None,
) -> RetrySummary:
    """Make the shards again in which images failed for one of the reasons, and those that need them.

    Of all the recipe's specialists, or of some. What the recipe has not done yet is done too, as by `annotate`,
    which goes on with a retry that was interrupted. Verdicts on those shards are renewed by the next filtering.

    Raises RecipeError for a specialist that the recipe does not have, and where the recipe would also redo shards that
    another made; IncompleteError at the end when units failed.
    """
    reporter = reporter or Reporter()
    made = with_students(recipe, dataset, reporter.note)
    for name in specialists:
        if name not in made.specialists:
            raise RecipeError(
                f"the recipe {made.name!r} has no specialist {name!r}{did_you_mean(name, list(made.specialists))}",
                "correct --specialist",
            )
    wanted = list(specialists or made.specialists)
    for stage in make_plan(made, dataset).stages.values():
        if stage.stale:
            raise RecipeError(
                f"{stage.stale} shards of {stage.name} were made by another recipe, code or weights",
                "give the recipe that made them, or renew them first: fde annotate",
            )
    before, failed = _failures(dataset, wanted, reasons)
    if not before:
        return RetrySummary(before, before, 0, None)
    units: dict[str, set[str]] = {}
    for name in made.ordered():
        needed = (units.get(need, set()) for need in made.specialists[name].needs)
        units[name] = failed.get(name, set()).union(*needed)
    ask(dataset, {name: shards for name, shards in units.items() if shards}, reasons)
    run = annotate(dataset, recipe, runner=runner, address=address, reporter=reporter)
    after, _ = _failures(dataset, wanted, reasons)
    return RetrySummary(before, after, sum(map(len, units.values())), run)


def _failures(
    dataset: Dataset, stages: Iterable[str], reasons: Sequence[str]
) -> tuple[Counter[tuple[str, str]], dict[str, set[str]]]:
    """How often each stage failed for each of the reasons, and in which shards. Only shards with failures are read."""
    counts: Counter[tuple[str, str]] = Counter()
    shards: dict[str, set[str]] = {}
    for stage in stages:
        for name in dataset.store.files(f"failures/{stage}"):
            found = read_table(dataset.store, f"failures/{stage}/{name}", ["reason"])
            for row in pc.value_counts(found["reason"]).to_pylist():
                if row["values"] in reasons:
                    counts[stage, row["values"]] += row["counts"]
                    shards.setdefault(stage, set()).add(name.removesuffix(".parquet"))
    return counts, shards
