"""Run a plan on pools of Ray actors that may die at any time.

One loop waits for whatever happens next and reacts. Its rules:
- An actor holds one specialist, which it loads once. A specialist that cannot load ends the run, with
  its reason, before any of its shards is touched.
- A unit is ready when the units of the same shard that it needs are done. No stage waits for a whole
  other stage.
- Actors are hired where there is work for them and their resources are free, first for the stages that
  others wait for; a stage that has no ready unit gives its actors up when another stage cannot start.
- A unit whose actor died goes back into the queue and another actor is hired. A unit that kills twice
  is run carefully, picture by picture. A picture that was alone in hand at two deaths is what kills (one
  death may be a node that went away): it becomes a row in `failures`, and the rest of the shard is
  annotated. (`ray.util.ActorPool` would end the run instead.)
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, FdeError, SpecialistError
from data_engine.recipe import SpecialistPart
from data_engine.runner.cluster import connect
from data_engine.runner.plan import Hire, Plan, Stage, Unit
from data_engine.runner.progress import Reporter
from data_engine.runner.work import Beat, Careful, Done

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("data_engine")

_ENVIRONMENT = {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2")}
"""Each unit brings threads of its own, and glibc an arena for each: the detector's
actor held 635 MiB after 12,000 images with two arenas, and 755 MiB without a limit."""

_DEATHS_BEFORE_CARE = 2
_FRUITLESS_DEATHS = 10
_LOADS_TRIED = 5


@dataclass
class _Trouble:
    """What is known of a unit that killed actors. `fruitless` counts deaths since something was learnt."""

    deaths: int = 0
    fruitless: int = 0
    start: int = 0
    suspect: str | None = None
    skip: tuple[str, ...] = ()


@dataclass
class _Actor:
    handle: Any
    stage: str
    loading: Any
    unit: Unit | None = None
    stream: Any = None
    row: int | None = None
    careful: bool = False
    done: bool = False
    counted: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def waits_for(self) -> Any:
        return self.loading if self.loading is not None else self.stream


class RayRun:
    """One run of a plan. `execute` returns when every unit is done or has failed for good."""

    def __init__(self, ray: ModuleType, plan: Plan, dataset: Dataset, reporter: Reporter, hire: Hire) -> None:
        self.ray = ray
        self.plan = plan
        self.dataset = dataset
        self.reporter = reporter
        self.hire = hire
        self.arguments: dict[str, list[Any]] = {}
        self.ready: dict[str, deque[str]] = {name: deque() for name in plan.stages}
        self.waiting: dict[str, dict[str, set[str]]] = {name: {} for name in plan.stages}
        self.left = {name: len(stage.todo) for name, stage in plan.stages.items()}
        self.actors: list[_Actor] = []
        self.trouble: dict[Unit, _Trouble] = {}
        self.failed_loads: dict[str, int] = dict.fromkeys(plan.stages, 0)
        self._queue()

    def _queue(self) -> None:
        todo = {name: set(stage.todo) for name, stage in self.plan.stages.items()}
        for name, stage in self.plan.stages.items():
            for shard in stage.todo:
                needs = {need for need in stage.needs if shard in todo[need]}
                if needs:
                    self.waiting[name][shard] = needs
                else:
                    self.ready[name].append(shard)

    def execute(self) -> None:
        try:
            while any(self.left.values()):
                self._hire()
                self._assign()
                self._react()
                self.reporter.tick()
        finally:
            for actor in self.actors:
                self.ray.kill(actor.handle)

    # Hiring: which actors there should be.

    def _hire(self) -> None:
        free = self._free_resources()
        for name, stage in self.plan.stages.items():
            have = sum(actor.stage == name for actor in self.actors)
            want = min(stage.part.actors, len(self.ready[name]) + self._busy(name))
            while have < want:
                if not _fits(stage.part, free):
                    if have == 0 and not self._release_idle(name, free):
                        self._check_possible(stage)
                    break
                self._start(stage)
                _take(stage.part, free)
                have += 1

    def _busy(self, name: str) -> int:
        return sum(actor.stage == name and actor.unit is not None for actor in self.actors)

    def _free_resources(self) -> dict[str, float]:
        # Counted from what we hired, not from what Ray says is free: an actor that is still being
        # placed holds nothing yet, and would be hired a second time.
        total = self.ray.cluster_resources()
        free = {"CPU": total.get("CPU", 0.0), "GPU": total.get("GPU", 0.0)}
        for actor in self.actors:
            _take(self.plan.stages[actor.stage].part, free)
        return free

    def _release_idle(self, name: str, free: dict[str, float]) -> bool:
        """Give up actors that have nothing to do now, until a first actor of stage `name` fits."""
        for actor in list(self.actors):
            if actor.unit is None and actor.loading is None and not self.ready[actor.stage]:
                self._dismiss(actor)
                _take(self.plan.stages[actor.stage].part, free, sign=-1)
                if _fits(self.plan.stages[name].part, free):
                    return True
        return False

    def _check_possible(self, stage: Stage) -> None:
        """A stage that no node could ever hold must say so instead of waiting for ever."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(
            node.get("CPU", 0) >= stage.part.cpus and node.get("GPU", 0) >= stage.part.gpus for node in nodes
        ):
            raise SpecialistError(
                f"{stage.called} asks for {stage.part.cpus:g} CPUs and {stage.part.gpus:g} GPUs per actor, "
                "which no node of the cluster has",
                "lower `cpus` or `gpus` in the recipe, or use another cluster",
            )

    def _start(self, stage: Stage) -> None:
        worker = self.hire(stage)
        # Once for all actors of a stage: what filters found in a whole data set may be large.
        if stage.name not in self.arguments:
            self.arguments[stage.name] = [self.ray.put(value) for value in worker.args]
        remote = self.ray.remote(worker.func).options(
            num_cpus=stage.part.cpus,
            num_gpus=stage.part.gpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": _ENVIRONMENT},
        )
        handle = remote.remote(*self.arguments[stage.name])
        self.actors.append(_Actor(handle, stage.name, handle.load.remote()))

    def _dismiss(self, actor: _Actor) -> None:
        self.ray.kill(actor.handle)
        self.actors.remove(actor)

    # Work: who does what.

    def _assign(self) -> None:
        for actor in list(self.actors):
            if actor.unit is not None or actor.loading is not None:
                continue
            if not self.left[actor.stage]:
                self._dismiss(actor)
            elif self.ready[actor.stage]:
                self._give(actor, Unit(actor.stage, self.ready[actor.stage].popleft()))

    def _give(self, actor: _Actor, unit: Unit) -> None:
        trouble = self.trouble.get(unit)
        careful: Careful | None = None
        if trouble is not None and trouble.deaths >= _DEATHS_BEFORE_CARE:
            careful = Careful(trouble.start, trouble.skip)
        actor.unit, actor.row, actor.careful, actor.done = unit, None, careful is not None, False
        actor.counted = [0, 0]
        # Back-pressure of one: a careful unit goes on to the next picture only when its Beat was
        # read here, so the last Beat names the picture that was in hand at a death.
        actor.stream = actor.handle.run.options(
            num_returns="streaming", _generator_backpressure_num_objects=1 if careful else -1
        ).remote(unit.shard, careful)
        progress = self.reporter.stages[actor.stage]
        if progress.started is None:
            progress.started = time.monotonic()

    def _react(self) -> None:
        refs = {actor.waits_for: actor for actor in self.actors if actor.waits_for is not None}
        if not refs:
            time.sleep(0.1)
            return
        done, _ = self.ray.wait(list(refs), num_returns=1, timeout=0.5)
        for ref in done:
            actor = refs[ref]
            try:
                if actor.loading is not None:
                    self.ray.get(ref)
                    actor.loading = None
                    self.failed_loads[actor.stage] = 0
                else:
                    self._event(actor, self.ray.get(next(actor.stream)))
            except StopIteration:
                if actor.done:
                    actor.unit = actor.stream = None
                else:  # Ray ends the stream of an actor that died between two of its messages
                    self._died(actor, "its stream ended early")
            except self.ray.exceptions.RayTaskError as error:
                self._refused(actor, error)
            except self.ray.exceptions.RayError as error:
                # Died, out of the node's memory, or out of reach: all the same to its unit.
                self._died(actor, " ".join(str(error).split())[:300])

    def _event(self, actor: _Actor, event: Beat | Done) -> None:
        self.reporter.stages[actor.stage].count(event)
        match event:
            case Beat():
                actor.row = event.row
                actor.counted[0] += event.images
                actor.counted[1] += event.failures
            case Done():
                assert actor.unit is not None
                actor.done = True
                self._finished(actor.unit)

    def _finished(self, unit: Unit) -> None:
        self.left[unit.specialist] -= 1
        self.trouble.pop(unit, None)
        for name, shards in self.waiting.items():
            needs = shards.get(unit.shard)
            if needs is not None and unit.specialist in needs:
                needs.discard(unit.specialist)
                if not needs:
                    del shards[unit.shard]
                    self.ready[name].append(unit.shard)

    # Trouble.

    def _died(self, actor: _Actor, message: str) -> None:
        self._dismiss(actor)  # one that is only out of reach would keep its resources
        if actor.loading is not None:
            self.failed_loads[actor.stage] += 1
            if self.failed_loads[actor.stage] >= _LOADS_TRIED:
                raise SpecialistError(
                    f"{self.plan.stages[actor.stage].called} died {_LOADS_TRIED} times while loading: {message}",
                    "it may need more memory than the node has: lower `actors`, or use a larger node",
                )
            return
        unit = actor.unit
        if unit is None or actor.done:
            return  # nothing was in its hands: its last unit's file is in place
        self._uncount(actor)
        trouble = self.trouble.setdefault(unit, _Trouble())
        trouble.deaths += 1
        trouble.fruitless += 1
        in_hand = None
        if actor.careful and actor.row is not None and actor.row >= trouble.start:
            in_hand = self._image_id(unit.shard, actor.row)
        if in_hand is not None and in_hand == trouble.suspect:
            trouble.skip, trouble.suspect, trouble.fruitless = (*trouble.skip, in_hand), None, 0
            self.reporter.note(
                f"{unit.specialist} {unit.shard}: image {in_hand} kills the process; it is left out"
            )
        else:
            trouble.suspect = in_hand
            if not actor.careful:
                trouble.start = actor.row or 0
            self.reporter.note(f"{unit.specialist} {unit.shard}: its actor died; the shard is tried again")
            log.debug("%s", message)
        if trouble.fruitless >= _FRUITLESS_DEATHS:
            self._give_up(unit, f"its actor died {trouble.deaths} times, and no one image is to blame")
        else:
            self.ready[unit.specialist].appendleft(unit.shard)

    def _refused(self, actor: _Actor, error: Any) -> None:
        """An exception came back. What would stop every shard stops the run; the rest costs its unit."""
        cause = error.cause
        if isinstance(cause, FdeError) and not isinstance(cause, DatasetError):
            raise cause
        if actor.loading is not None:
            raise SpecialistError(
                f"{self.plan.stages[actor.stage].called} cannot be loaded: {' '.join(str(cause).split())[:500]}",
                "see its args",
            ) from error
        self._uncount(actor)
        assert actor.unit is not None
        self._give_up(actor.unit, " ".join(f"{type(cause).__name__}: {cause}".split())[:500])
        actor.unit = actor.stream = None

    def _uncount(self, actor: _Actor) -> None:
        progress = self.reporter.stages[actor.stage]
        progress.images -= actor.counted[0]
        progress.failures -= actor.counted[1]

    def _give_up(self, unit: Unit, why: str) -> None:
        """This unit will not be done in this run, and neither will what needs it."""
        self.reporter.note(f"{unit.specialist} {unit.shard} failed: {why}")
        self.left[unit.specialist] -= 1
        self.reporter.stages[unit.specialist].units_failed += 1
        for name, shards in self.waiting.items():
            if unit.specialist in shards.get(unit.shard, ()):
                del shards[unit.shard]
                self._give_up(Unit(name, unit.shard), f"it needs {unit.specialist}")

    def _image_id(self, shard: str, row: int) -> str | None:
        seen = 0
        for batch in self.dataset.image_batches(shard, 4096, ["image_id"]):
            if row < seen + batch.num_rows:
                return str(batch.column(0)[row - seen])
            seen += batch.num_rows
        return None


def _fits(part: SpecialistPart, free: dict[str, float]) -> bool:
    return part.cpus <= free["CPU"] + 1e-9 and part.gpus <= free["GPU"] + 1e-9


def _take(part: SpecialistPart, free: dict[str, float], sign: int = 1) -> None:
    free["CPU"] -= sign * part.cpus
    free["GPU"] -= sign * part.gpus


def run_on_ray(plan: Plan, dataset: Dataset, reporter: Reporter, address: str | None, hire: Hire) -> None:
    """Do every unit of the plan on a Ray cluster. Raises the error of what stops the whole run."""
    ray, ours = connect(address)
    try:
        RayRun(ray, plan, dataset, reporter, hire).execute()
    finally:
        if ours:
            ray.shutdown()
