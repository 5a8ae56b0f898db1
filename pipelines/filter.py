"""Filter: a recipe's filters over every annotation, one verdict each, with the reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, did_you_mean
from data_engine.errors import DatasetError, IncompleteError, RecipeError
from data_engine.fingerprint import digest
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.retries import verdicts_to_renew
from data_engine.run_record import Run, recorded
from data_engine.runner.inline import run_inline
from data_engine.runner.plan import Plan, Stage
from data_engine.runner.pool import run_on_ray
from data_engine.runner.progress import Reporter, StageProgress
from data_engine.students import with_students
from pipelines.annotate import Runner
from pipelines.filter_work import FilterWorker, ShardVerdicts, build_filters

_INLINE_SHARDS = 100
"""With fewer shards to judge, starting a Ray cluster (about 10 seconds) is not worth it."""

_PART = SpecialistPart(use="pipelines.filter_work:FilterWorker", actors=100_000)
"""How the judging runs on Ray: an actor for each CPU."""


@dataclass
class FilterSummary:
    """The funnel: statements in, dropped by each filter (in the recipe's order), kept.

    `images` are those of the shards, `bare` those of them of which something was said and nothing is kept.
    """

    seen: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    images: int = 0
    bare: int = 0
    shards_done: int = 0
    shards_skipped: int = 0
    runner: str = "inline"

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add a shard's counts, as `pipelines.filter_work.counted` gives them."""
        self.seen += counts["seen"]
        self.kept += counts["kept"]
        self.dropped.update(counts["dropped"])
        self.images += counts["images"]
        self.bare += counts["bare"]


def filter_dataset(
    dataset: Dataset,
    recipe: Recipe,
    *,
    round_: int = 0,
    sample: float | None = None,
    runner: Runner = "inline",
    address: str | None = None,
    reporter: Reporter | None = None,
) -> FilterSummary:
    """Write the verdicts of one round. Shards whose verdicts are current are skipped, but counted.

    Where only later filters have changed, what the earlier ones dropped is taken from the verdicts there
    are. With `sample`, a share of the shards in 0..1, evenly spread and at least one, nothing is written:
    the summary says what would come out of those.

    `runner` is as `annotate` has it: `inline`, `ray`, or `auto`, which is Ray when an address is given or there
    are many shards. What a filter finds in the whole data set is found once, here.

    Raises RecipeError for a recipe without filters or an impossible sample, SpecialistError for a filter that
    fails, and IncompleteError at the end when the annotations of some shards could not be read.
    """
    if not recipe.filters:
        raise RecipeError(f"the recipe {recipe.name!r} has no filters", "add some under `filters:`")
    if sample is not None and not 0 < sample <= 1:
        raise RecipeError(f"a sample of {sample} of the shards", "give a share above 0 and up to 1")
    reporter = reporter or Reporter()
    recipe = with_students(recipe, dataset, reporter.note)
    _note_unknown_sources(dataset, recipe, reporter)
    rules, found = _rules(dataset, recipe)
    shards = dataset.shards if sample is None else _spread(dataset.shards, sample)
    there = ShardVerdicts(dataset, round_, rules)
    renewed = verdicts_to_renew(dataset, round_)
    current = {
        shard: counts
        for shard in shards
        if shard not in renewed and (counts := there.current(shard)) is not None
    }
    todo = [shard for shard in shards if shard not in current]
    summary = FilterSummary(shards_skipped=len(current))
    for counts in current.values():
        summary.add(counts)

    if runner == "auto":
        wide = address or os.environ.get("RAY_ADDRESS") or len(todo) > _INLINE_SHARDS
        runner = "ray" if wide and todo else "inline"
    summary.runner = runner
    stage = Stage("filter", _PART, digest(rules), todo, len(current), 0, label="the filters")
    plan = Plan({"filter": stage})
    progress = StageProgress(
        "filter", summary.images + sum(_images(dataset, shard) for shard in todo), units=len(shards)
    )
    progress.skip(len(current), summary.images)
    hire = partial(
        FilterWorker, dataset.url, recipe.filters, recipe.folder, round_, rules, found, sample is None
    )

    name = f"filter-{round_}" if round_ else "filter"
    run = Run.begin("filter", recipe, runner)
    reporter.run_id = run.run_id
    record = recorded(dataset, run, {name: stage}, {name: progress})
    with record if todo and sample is None else nullcontext(), reporter.shown({"filter": progress}):
        if runner == "inline":
            run_inline(plan, reporter, lambda _: hire)
        elif todo:
            run_on_ray(plan, dataset, reporter, address, lambda _: hire)
    summary.shards_done = progress.units_done
    for counts in progress.results:
        summary.add(counts)
    if progress.units_failed:
        raise IncompleteError(
            f"{progress.units_failed} of {len(shards)} shards were not judged; the lines above say which and why",
            "run the same command again: it tries only those",
        )
    if summary.seen != summary.kept + sum(summary.dropped.values()):
        raise DatasetError(
            f"{summary.seen:,} statements, of which {summary.kept:,} are kept and "
            f"{sum(summary.dropped.values()):,} dropped",
            "remove the data set's folder verdicts and filter again",
        )
    return summary


def _note_unknown_sources(dataset: Dataset, recipe: Recipe, reporter: Reporter) -> None:
    """A filter that waits for a source which is not there keeps everything: that must not pass unseen."""
    known = dataset.sources()
    for name, part in recipe.filters.items():
        for source in part.where.source:
            if source not in known:
                reporter.note(
                    f"filters.{name}: the data set has no annotations by {source!r}{did_you_mean(source, known)}"
                )


def _rules(dataset: Dataset, recipe: Recipe) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """A digest for each filter, and the attributes of those that have looked at the whole data set."""
    made = build_filters(recipe.filters, recipe.folder)
    rules, found = [], {}
    for name, part in recipe.filters.items():
        survey = getattr(made[name], "survey", None)
        saw = ""
        if survey is not None:
            saw = str(survey(dataset, part.where))
            found[name] = dict(vars(made[name]))
        rules.append(digest([name, part.model_dump(), code_version(part.use), saw]))
    return rules, found


def _spread(shards: Sequence[str], share: float) -> list[str]:
    count = max(1, round(len(shards) * share))
    return [shards[(2 * i + 1) * len(shards) // (2 * count)] for i in range(count)]


def _images(dataset: Dataset, shard: str) -> int:
    """How many images a shard has: all shards but the last are full."""
    size = dataset.info.shard_size
    return min(size, dataset.info.images - size * int(shard))
