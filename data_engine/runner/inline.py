"""Run a plan in this process, one specialist after the other: no start-up cost, and a debugger works."""

from __future__ import annotations

import time

from data_engine.errors import DatasetError
from data_engine.runner.plan import Hire, Plan
from data_engine.runner.progress import Reporter


def run_inline(plan: Plan, reporter: Reporter, hire: Hire) -> None:
    """Do every unit of the plan. What a specialist cannot survive ends this process too: use Ray for that."""
    failed: set[tuple[str, str]] = set()
    for stage in plan.stages.values():
        progress = reporter.stages[stage.name]
        if not stage.todo:
            continue
        worker = hire(stage)()
        worker.load()
        progress.started = time.monotonic()
        for shard in stage.todo:
            if any((need, shard) in failed for need in stage.needs):
                failed.add((stage.name, shard))
                progress.units_failed += 1
                continue
            try:
                for event in worker.run(shard):
                    progress.count(event)
                    reporter.tick()
            except DatasetError as error:
                # A damaged input shard costs its own units; the rest of the data set is still served.
                reporter.note(f"{stage.name} {shard}: {error.message}; {error.hint}")
                failed.add((stage.name, shard))
                progress.units_failed += 1
