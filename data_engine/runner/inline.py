"""Run a plan in this process, one specialist after the other: no start-up cost, and a debugger works."""

from __future__ import annotations

import time
from dataclasses import replace

from data_engine.environment import environment
from data_engine.errors import DatasetError, SpecialistError
from data_engine.runner.plan import Hire, Plan, Stage, Unit
from data_engine.runner.progress import Reporter
from data_engine.runner.work import Done


def run_inline(plan: Plan, reporter: Reporter, hire: Hire) -> None:
    """Do every unit of the plan. What a specialist cannot survive ends this process too: use Ray for that."""
    failed: set[tuple[str, str]] = set()
    for stage in plan.stages.values():
        if stage.todo:
            with environment(_variables(stage)):
                _run_stage(plan, stage, reporter, hire, failed)


def _run_stage(
    plan: Plan, stage: Stage, reporter: Reporter, hire: Hire, failed: set[tuple[str, str]]
) -> None:
    progress = reporter.stages[stage.name]

    def give_up(shard: str, why: str) -> None:
        failed.add((stage.name, shard))
        progress.give_up(shard, why)

    begun = time.monotonic()
    progress.actors = 1
    try:
        worker = hire(stage)()
        worker.load()
        progress.started = time.monotonic()
        for shard in stage.todo:
            missing = next((need for need in stage.needs if (need, shard) in failed), None)
            if missing is not None:
                give_up(shard, f"it needs {missing}")
                continue
            progress.begin(shard)
            since = time.monotonic()
            try:
                for event in worker.run(shard):
                    if isinstance(event, Done):
                        event = replace(event, seconds=time.monotonic() - since)
                        progress.end(shard, done=True)
                        plan.finished(Unit(stage.name, shard), event.stamp)
                    progress.count(event)
                    reporter.tick()
            except DatasetError as error:
                # A damaged input shard costs its own units; the rest of the data set is still served.
                why = f"{error.message}; {error.hint}"
                reporter.note(f"{stage.name} {shard}: {why}", stage=stage.name, shard=shard)
                progress.end(shard, done=False)
                give_up(shard, why)
            now = time.monotonic()
            progress.actor_seconds, begun = progress.actor_seconds + now - begun, now
    finally:
        progress.actors = 0
        progress.actor_seconds += time.monotonic() - begun
    reporter.tick()  # the last shard may have been given up, and the next stage may load for minutes


def _variables(stage: Stage) -> dict[str, str]:
    """Those of a stage's `runtime_env`. Raises SpecialistError where it names packages or files."""
    if stage.part.only_on_ray:
        raise SpecialistError(
            f"{stage.called} has a runtime_env with {', '.join(stage.part.only_on_ray)}, which only Ray can set up",
            "use --runner ray",
        )
    return dict(stage.part.runtime_env.get("env_vars", {}))
