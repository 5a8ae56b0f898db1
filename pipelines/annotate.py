"""Annotate: ingest if need be, then every specialist of a recipe over every shard that lacks its output."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

from data_engine.addresses import check_source
from data_engine.dataset import Dataset
from data_engine.errors import IncompleteError
from data_engine.fingerprint import digest
from data_engine.recipe import Recipe
from data_engine.retries import add_to
from data_engine.run_record import Run, recorded
from data_engine.runner.inline import run_inline
from data_engine.runner.plan import Plan, Stage, make_plan
from data_engine.runner.pool import run_on_ray
from data_engine.runner.progress import Reporter, StageProgress
from data_engine.runner.work import Worker
from data_engine.students import with_students
from data_engine.wording import counted

Runner = Literal["auto", "inline", "ray"]

_INLINE_IMAGES = 300
"""With fewer images to look at, starting a Ray cluster (about 10 seconds) is not worth it."""


@dataclass
class AnnotateSummary:
    """What a run did, stage by stage, in the recipe's order."""

    stages: list[StageProgress]
    seconds: float
    runner: str


def annotate(
    dataset: Dataset,
    recipe: Recipe,
    *,
    runner: Runner = "auto",
    address: str | None = None,
    reporter: Reporter | None = None,
) -> AnnotateSummary:
    """Run a recipe over a data set. Shards whose fingerprint is current are skipped.

    `runner` is `ray`, `inline` (this process) or `auto`: Ray when an address is given, there is enough
    to do, or a specialist has packages of its own. Raises IncompleteError at the end when units failed; everything else was written.
    """
    dataset.store.sweep()
    reporter = reporter or Reporter()
    recipe = with_students(recipe, dataset, reporter.note)
    plan = make_plan(recipe, dataset)
    plan.keep()
    again = add_to(plan, dataset)
    if again:
        reporter.note(f"made again because images failed in them (fde retry): {counted(again, 'shard')}")
    stages = _progress(plan, dataset)
    for stage in plan.stages.values():
        if stage.stale:
            reporter.note(
                f"{stage.name}: {counted(stage.stale, 'shard was', 'shards were')} made by another recipe, code or "
                "weights, and made again"
            )
    if plan.units and not dataset.info.embedded:
        check_source(dataset.info.source, dataset.url)
    if runner == "auto":
        todo = sum(s.total - s.images for s in stages.values())
        wide = address or os.environ.get("RAY_ADDRESS") or todo > _INLINE_IMAGES
        wide = wide or any(stage.todo and stage.part.only_on_ray for stage in plan.stages.values())
        runner = "ray" if wide and plan.units else "inline"

    def hire(stage: Stage) -> partial[Worker]:
        return partial(Worker, dataset.url, stage.name, stage.part, stage.fingerprint, recipe.folder)

    clock = time.monotonic()
    if plan.units:
        run = Run.begin("annotate", recipe, runner)
        reporter.run_id = run.run_id
        with recorded(dataset, run, plan.stages, stages) as others, reporter.shown(stages):
            if others:
                reporter.note(f"{others[0].who} works on this data set too: this run begins elsewhere in it")
                _begin_elsewhere(plan, dataset, run.run_id)
            try:
                if runner == "inline":
                    run_inline(plan, reporter, hire)
                else:
                    run_on_ray(plan, dataset, reporter, address, hire)
            finally:
                plan.flush()
    else:
        plan.flush()
    failed = sum(s.units_failed for s in stages.values())
    if failed:
        raise IncompleteError(
            f"{counted(failed, 'unit')} of work failed; the lines above say which and why",
            "run the same command again: it tries only those",
        )
    return AnnotateSummary(list(stages.values()), time.monotonic() - clock, runner)


def _begin_elsewhere(plan: Plan, dataset: Dataset, run_id: str) -> None:
    """Turn every stage's list round to one shard, chosen by the run: two drivers seldom do the same unit then."""
    first = dataset.shards[int(digest(run_id), 16) % len(dataset.shards)]
    for stage in plan.stages.values():
        stage.todo.sort(key=lambda shard: (shard < first, shard))


def _progress(plan: Plan, dataset: Dataset) -> dict[str, StageProgress]:
    size, total, count = dataset.info.shard_size, dataset.info.images, dataset.info.shards
    last = total - size * (count - 1)
    stages: dict[str, StageProgress] = {}
    for name, stage in plan.stages.items():
        todo = len(stage.todo) * size - (
            size - last if stage.todo and stage.todo[-1] == dataset.shards[-1] else 0
        )
        stages[name] = StageProgress(name, total, units=count)
        stages[name].skip(stage.current, total - todo)
    return stages
