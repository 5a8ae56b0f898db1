"""Annotate: ingest if need be, then every specialist of a recipe over every shard that lacks its output."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from data_engine import __version__
from data_engine.dataset import Dataset
from data_engine.errors import FdeError, IncompleteError
from data_engine.recipe import Recipe
from data_engine.runner.inline import run_inline
from data_engine.runner.plan import Plan, Stage, make_plan
from data_engine.runner.pool import run_on_ray
from data_engine.runner.progress import Reporter, StageProgress
from data_engine.runner.work import Worker
from data_engine.students import with_students

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

    `runner` is `ray`, `inline` (this process) or `auto`: Ray when an address is given or there is enough
    to do. Raises IncompleteError at the end when units failed; everything else was written.
    """
    dataset.store.sweep()
    reporter = reporter or Reporter()
    recipe = with_students(recipe, dataset, reporter.note)
    plan = make_plan(recipe, dataset)
    stages = _progress(plan, dataset)
    for stage in plan.stages.values():
        if stage.stale:
            reporter.note(
                f"{stage.name}: {stage.stale} shards were made by another recipe, code or weights; they are made again"
            )
    if runner == "auto":
        todo = sum(s.total - s.images for s in stages.values())
        wide = address or os.environ.get("RAY_ADDRESS") or todo > _INLINE_IMAGES
        runner = "ray" if wide and plan.units else "inline"

    def hire(stage: Stage) -> partial[Worker]:
        return partial(Worker, dataset.url, stage.name, stage.part, stage.fingerprint, recipe.folder)

    started, clock = datetime.now(UTC), time.monotonic()
    status = "failed"
    try:
        with reporter.shown(stages):
            if runner == "inline":
                run_inline(plan, reporter, hire)
            elif plan.units:
                run_on_ray(plan, dataset, reporter, address, hire)
        status = "incomplete" if any(s.units_failed for s in stages.values()) else "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        if plan.units:
            # A run that fails because nothing can be written must end with that reason, not this one's.
            with suppress(FdeError):
                _record(dataset, recipe, stages, started, time.monotonic() - clock, status)
    failed = sum(s.units_failed for s in stages.values())
    if failed:
        raise IncompleteError(
            f"{failed} units of work failed; the lines above say which and why",
            "run the same command again: it tries only those",
        )
    return AnnotateSummary(list(stages.values()), time.monotonic() - clock, runner)


def _progress(plan: Plan, dataset: Dataset) -> dict[str, StageProgress]:
    size, total, count = dataset.info.shard_size, dataset.info.images, dataset.info.shards
    last = total - size * (count - 1)
    stages: dict[str, StageProgress] = {}
    for name, stage in plan.stages.items():
        todo = len(stage.todo) * size - (
            size - last if stage.todo and stage.todo[-1] == dataset.shards[-1] else 0
        )
        stages[name] = StageProgress(name, total)
        stages[name].skip(stage.current, total - todo)
    return stages


def _record(
    dataset: Dataset,
    recipe: Recipe,
    stages: dict[str, StageProgress],
    started: datetime,
    seconds: float,
    status: str,
) -> None:
    run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    rows = [
        {
            "run_id": run_id,
            "command": "annotate",
            "recipe": recipe.name,
            "stage": stage.name,
            "status": status,
            "started": started,
            "seconds": seconds,
            "units_done": stage.units_done,
            "units_skipped": stage.units_skipped,
            "units_failed": stage.units_failed,
            "images": stage.images - stage.skipped_images,
            "annotations": stage.annotations,
            "failures": stage.failures,
            "version": __version__,
        }
        for stage in stages.values()
    ]
    dataset.write_run(run_id, rows)
