"""Run a plan on pools of Ray actors that may die at any time.

One loop waits for whatever happens next and reacts. Its rules:
- An actor holds one specialist, which it loads once. A specialist that cannot load ends the run, with
  its reason, before any of its shards is touched.
- A unit is ready when the units of the same shard that it needs are done. No stage waits for a whole
  other stage.
- Actors are hired where there is work for them and a node has room, first for the stages that others wait
  for; what has nothing to do is given up, at once where another stage cannot start without (hiring.py).
- An actor is given several units at once where they are short, so that it does not wait for the driver, and
  tells of them together (hands.py).
- A unit whose actor died goes back into the queue and another actor is hired. A unit that kills twice
  is run carefully, picture by picture. A picture that was alone in hand at two deaths is what kills (one
  death may be a node that went away): it becomes a row in `failures`, and the rest of the shard is
  annotated (trouble.py). (`ray.util.ActorPool` would end the run instead.)
- An actor that gives no sign of life for too long is ended. A unit that takes far longer than others of
  its stage is given to a second actor where one has nothing else to do; whichever is first counts.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, FdeError, SpecialistError
from data_engine.runner.actor import Report
from data_engine.runner.cluster import Cluster, connect
from data_engine.runner.hands import Hands
from data_engine.runner.hiring import Crew
from data_engine.runner.plan import Hire, Plan, Unit
from data_engine.runner.progress import Reporter
from data_engine.runner.queue import Queue
from data_engine.runner.relist import Relist
from data_engine.runner.team import Hired, Team
from data_engine.runner.trouble import Troubles

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("data_engine")

_LOADS_TRIED = 5
_LOOK_SECONDS = 1.0
_HIRE_SECONDS = 0.1


class Clock(Protocol):
    """What is used of the `time` module."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class RayRun:
    """One run of a plan. `execute` returns when every unit is done or has failed for good."""

    def __init__(
        self,
        ray: ModuleType,
        plan: Plan,
        dataset: Dataset,
        reporter: Reporter,
        hire: Hire,
        cluster: Cluster,
        clock: Clock = time,
    ) -> None:
        self.ray = ray
        self.dataset = dataset
        self.reporter = reporter
        self.clock = clock
        self.cluster = cluster
        self.queue = Queue(plan)
        self.troubles = Troubles()
        self.teams = {name: Team(stage, reporter.stages[name]) for name, stage in plan.stages.items()}
        self.crew = Crew(
            ray, cluster, self.teams, hire, lambda name: len(self.queue.ready[name]), reporter.note
        )
        self.hands = Hands(self.crew, self.queue, self.troubles, reporter.note, plan.finished)
        self.relist = Relist(plan)
        self._changed = True
        self._hired = self._looked = -math.inf

    def execute(self) -> None:
        """Do the plan. Raises the error of what stops the whole run; its actors end in any case."""
        try:
            while self.queue.total_left:
                now = self.clock.monotonic()
                if now - self._looked >= _LOOK_SECONDS:
                    self._look(now)
                if self._changed and now - self._hired >= _HIRE_SECONDS:
                    self._hired, self._changed = now, self.crew.hire(now)
                self.hands.assign(now)
                self._react()
                self.reporter.tick()
        finally:
            self._count_time(self.clock.monotonic())
            self.relist.close()
            self.crew.dismiss_all()

    def _look(self, now: float) -> None:
        """Once a second: what no message tells. Raises ClusterError where the cluster's head is lost."""
        self.cluster.check()
        self.crew.look()
        self.troubles.forgive(self.crew.room.total, now)
        self._count_time(now)
        if now - self._looked < 10 * _LOOK_SECONDS:  # else it was this process that did not listen
            self._end_silent(now)
        self.hands.help_slow(now)
        for unit in self.queue.done_elsewhere(self.relist.found(now)):
            self.teams[unit.specialist].progress.skip(1, self.dataset.images_in(unit.shard))
        self.crew.thin_out(now)
        self.crew.ask()
        self._looked, self._changed = now, True

    def _count_time(self, now: float) -> None:
        for team in self.teams.values():
            there = sum(actor.node is not None for actor in team.actors)
            team.progress.actor_seconds += there * (now - self._looked) if there else 0.0

    def _end_silent(self, now: float) -> None:
        for actor in list(self.crew.actors):
            silence = self.teams[actor.stage].stage.part.silence
            expected = actor.works or (actor.node is not None and not actor.loaded)
            if expected and now - actor.heard > silence:
                message = f"its actor gave no sign of life for {silence:g} seconds"
                self._died(actor, message, why=message)

    # Messages.

    def _react(self) -> None:
        streams = list(self.crew.streams)
        if not streams:
            self.clock.sleep(_HIRE_SECONDS)
            return
        ready, _ = self.ray.wait(streams, num_returns=1, timeout=0.5)
        if ready and len(streams) > 1:
            # Whatever else is there: one round for many messages.
            ready, _ = self.ray.wait(streams, num_returns=len(streams), timeout=0)
        for stream in ready:
            actor = self.crew.streams.get(stream)
            if actor is not None:  # not dismissed by what an earlier message of this round brought
                self._read(actor)

    def _read(self, actor: Hired) -> None:
        actor.heard = self.clock.monotonic()
        try:
            message = self.ray.get(next(actor.stream))
        except StopIteration:  # Ray ends the stream of an actor that died between two of its messages
            self._died(actor, "its stream ended early")
        except self.ray.exceptions.RayTaskError as error:
            self._refused(actor, error)
        except self.ray.exceptions.RayError as error:
            # Died, out of the node's memory, or out of reach: all the same to its unit.
            self._died(actor, " ".join(str(error).split())[:500], error)
        else:
            self._take(actor, message)

    def _take(self, actor: Hired, message: Report | str) -> None:
        if isinstance(message, Report):
            for event in message.events:
                for name in self.hands.told(actor, event):
                    self._changed = self._changed or self.crew.may_grow(name)
            if message.last:
                self.hands.rest(actor, actor.heard)
        elif message:
            self.crew.placed(actor, message)
        else:
            self.crew.loaded(actor)

    # Trouble.

    def _died(
        self, actor: Hired, message: str, error: Exception | None = None, why: str = "its actor died"
    ) -> None:
        team = self.teams[actor.stage]
        with_node = self.crew.left_with_its_node(actor, error)
        self.crew.dismiss(actor)  # one that is only out of reach would keep its resources
        self._changed = True
        log.debug("an actor of %s died: %s", actor.stage, message)
        if not actor.loaded:
            if isinstance(error, self.ray.exceptions.RuntimeEnvSetupError):
                raise SpecialistError(
                    f"the runtime_env of {team.stage.called} cannot be set up: {message}",
                    "correct `runtime_env` in the recipe",
                )
            team.failed_loads += not with_node
            if team.failed_loads >= _LOADS_TRIED:
                raise SpecialistError(
                    f"{team.stage.called} died {_LOADS_TRIED} times while loading: {message}",
                    "it may need more memory than the node has (lower `actors`, or use a larger node), or more "
                    "time than `silence` gives it",
                )
            return
        shards = self.hands.let_go(actor)
        if len(actor.hand) == 1:
            if not self._may_try(Unit(actor.stage, actor.hand[0]), actor, with_node, last=bool(shards)):
                return
        elif not with_node:
            for shard in shards:
                self.troubles.of(Unit(actor.stage, shard))  # alone next time: then a death is its own
        if shards:
            self.queue.put_back(actor.stage, shards)
            team.progress.redone += len(shards)
            what, verb = (
                (shards[0], "is") if len(shards) == 1 else (f"{shards[0]} and {len(shards) - 1} more", "are")
            )
            why = "its node went away" if with_node else why
            self.reporter.note(
                f"{actor.stage} {what}: {why}; the shard{'s' * (verb == 'are')} {verb} tried again",
                stage=actor.stage,
                shard=shards[0],
            )

    def _may_try(self, unit: Unit, actor: Hired, with_node: bool, *, last: bool) -> bool:
        """Learn from the death of an actor that had one unit in hand. False when the unit is given up, which
        happens when no other actor has it."""
        if not last and unit not in self.hands.holders:
            return True  # done by another
        trouble = self.troubles.of(unit)
        if with_node and trouble.node_died():
            return True
        in_hand = None
        if actor.careful and actor.row is not None and actor.row >= trouble.start:
            in_hand = self._image_id(unit.shard, actor.row)
        if trouble.died(careful=actor.careful, row=actor.row, in_hand=in_hand):
            self.reporter.note(
                f"{unit.specialist} {unit.shard}: image {in_hand} kills the process; it is left out",
                stage=unit.specialist,
                shard=unit.shard,
            )
        self.troubles.remember(unit, actor.node, self.clock.monotonic())
        if last and trouble.hopeless:
            self.hands.give_up(unit, f"its actor died {trouble.deaths} times, and no one image is to blame")
        return not (last and trouble.hopeless)

    def _refused(self, actor: Hired, error: Any) -> None:
        """An exception came back. What would stop every shard stops the run; the rest costs its unit."""
        cause = error.cause
        if isinstance(cause, FdeError) and not isinstance(cause, DatasetError):
            raise cause
        if not actor.loaded:
            raise SpecialistError(
                f"{self.teams[actor.stage].stage.called} cannot be loaded: {' '.join(str(cause).split())[:500]}",
                "see its args",
            ) from error
        at_fault = actor.hand[0] if actor.hand else None
        for shard in reversed(self.hands.let_go(actor)):
            if shard == at_fault:
                why = " ".join(f"{type(cause).__name__}: {cause}".split())[:500]
                self.hands.give_up(Unit(actor.stage, shard), why)
            else:
                self.queue.put_back(actor.stage, [shard])
        self.hands.rest(actor, actor.heard)
        self._changed = True

    def _image_id(self, shard: str, row: int) -> str | None:
        seen = 0
        for batch in self.dataset.image_batches(shard, 4096, ["image_id"]):
            if row < seen + batch.num_rows:
                return str(batch.column(0)[row - seen])
            seen += batch.num_rows
        return None


def run_on_ray(plan: Plan, dataset: Dataset, reporter: Reporter, address: str | None, hire: Hire) -> None:
    """Do every unit of the plan on a Ray cluster. Raises the error of what stops the whole run."""
    ray, ours = connect(address)
    cluster = Cluster(ray)
    try:
        RayRun(ray, plan, dataset, reporter, hire, cluster).execute()
    finally:
        cluster.close()
        if ours:
            ray.shutdown()
