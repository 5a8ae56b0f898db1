"""The actors of a run: hired where there is work and room, given up where there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from data_engine.errors import ClusterError, SpecialistError
from data_engine.runner.actor import UnitActor
from data_engine.runner.cluster import Cluster
from data_engine.runner.plan import Hire
from data_engine.runner.room import Room
from data_engine.runner.team import Hired, Team

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("data_engine")

_ENVIRONMENT = {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2")}
"""Each unit brings threads of its own, and glibc an arena for each: the detector's
actor held 635 MiB after 12,000 images with two arenas, and 755 MiB without a limit."""

_HIRED_AT_ONCE = 200
"""Between so many new actors the driver looks at what the others say."""

_IDLE_SECONDS = 60.0
"""An actor with nothing to do keeps its model in memory so long: another shard may come."""

_IDLE_WHERE_OTHERS_WAIT = 10.0
"""And so long where another stage has work and no room."""

_NODE_DIED = "node has died"
"""Part of what Ray says of an actor whose whole node is gone."""

_NAMES = {"CPU": "CPUs", "GPU": "GPUs"}


class Crew:
    """All actors of a run. `ready` gives how many units of a stage could be begun now."""

    def __init__(
        self,
        ray: ModuleType,
        cluster: Cluster,
        teams: dict[str, Team],
        hire: Hire,
        ready: Callable[[str], int],
        note: Callable[[str], None],
    ) -> None:
        self.ray = ray
        self.cluster = cluster
        self.teams = teams
        self.streams: dict[Any, Hired] = {}
        self.room = Room(cluster.nodes())
        self._hire = hire
        self._ready = ready
        self._note = note
        self._arguments: dict[str, list[Any]] = {}
        self._asked: list[dict[str, float]] = []

    @property
    def actors(self) -> Iterable[Hired]:
        return (actor for team in self.teams.values() for actor in team.actors)

    def look(self) -> None:
        """See which nodes there are now."""
        self.room = Room(self.cluster.nodes())
        for team in self.teams.values():
            for actor in team.actors:
                if actor.node is None and actor.assumed not in self.room.free:
                    actor.assumed = self.room.fits(team.stage.part.wants)
                self.room.take(team.stage.part.wants, actor.node or actor.assumed)

    def hire(self, now: float) -> bool:
        """Hire for each stage what it has work for and where there is room, first for those that others wait for.

        True when there are more to be hired at once. Raises SpecialistError for a stage that no node can hold.
        """
        started = 0
        for name, team in self.teams.items():
            part = team.stage.part
            ready = self._ready(name)
            want = min(part.most, ready + team.busy + team.slow)
            while len(team.actors) < want and started < _HIRED_AT_ONCE:
                node = self.room.fits(part.wants)
                if node is None:
                    if not self._make_room(name, now):
                        if not team.actors:
                            self._check_possible(team, now)
                        break
                    continue
                if not started and not self.cluster.answers():
                    return True
                self._start(team, node, now)
                started += 1
            if team.actors or not ready:
                team.waits_since = None
        return started >= _HIRED_AT_ONCE

    def may_grow(self, name: str) -> bool:
        """Whether a stage has fewer actors than it may have."""
        team = self.teams[name]
        return len(team.actors) < team.stage.part.most

    def thin_out(self, now: float) -> None:
        """Give up actors that wait in vain for a node or for work, down to those that a stage keeps."""
        for name, team in self.teams.items():
            if self._ready(name) or team.slow:
                stuck = [a for a in team.actors if a.node is None and now - a.began > _IDLE_WHERE_OTHERS_WAIT]
                if stuck and len(stuck) == len(team.actors):
                    # Ray has put others' actors where this stage's were thought to fit.
                    for other in self._idlers(name, now, at_least=0.0, keep_least=False):
                        self.dismiss(other)
                continue
            for actor in [a for a in team.actors if a.node is None]:
                self.dismiss(actor)
            for actor in self._beyond_least(team, now, _IDLE_SECONDS):
                self.dismiss(actor)

    def ask(self) -> None:
        """Tell the cluster's autoscaler what the elastic stages would use; nothing where there is none."""
        wanted: list[dict[str, float]] = []
        for name, team in self.teams.items():
            part = team.stage.part
            if part.elastic:
                count = min(
                    part.most, max(part.least if self._ready(name) else 0, self._ready(name) + team.busy)
                )
                wanted += [{k: v for k, v in part.wants.items() if v}] * count
        if wanted != self._asked:
            self.cluster.ask_for(wanted)
            self._asked = wanted

    def dismiss(self, actor: Hired) -> None:
        team = self.teams[actor.stage]
        if actor not in team.actors:
            return
        self.cluster.kill(actor.handle)
        team.actors.discard(actor)
        team.idle.pop(actor, None)
        team.busy -= actor.works
        self.listen(actor, None)
        self.room.give(team.stage.part.wants, actor.node or actor.assumed)
        team.progress.actors = len(team.actors)

    def dismiss_all(self) -> None:
        for actor in list(self.actors):
            self.dismiss(actor)
        if self._asked:
            self.cluster.ask_for([])

    def placed(self, actor: Hired, node: str) -> None:
        """Ray says where an actor is."""
        wants = self.teams[actor.stage].stage.part.wants
        self.room.give(wants, actor.assumed)
        self.room.take(wants, node)
        actor.node = node

    def loaded(self, actor: Hired) -> None:
        """An actor can be given work."""
        team = self.teams[actor.stage]
        self.listen(actor, None)
        actor.loaded, team.failed_loads = True, 0
        team.idle[actor] = actor.heard

    def left_with_its_node(self, actor: Hired, error: Exception | None) -> bool:
        """Whether an actor's death is known to be its node's."""
        if getattr(error, "preempted", False) or _NODE_DIED in str(error):
            return True
        return actor.node is not None and actor.node not in self.room.total

    def listen(self, actor: Hired, stream: Any) -> None:
        """From now on this stream is what is waited for; None: none."""
        if actor.stream is not None:
            self.streams.pop(actor.stream, None)
        actor.stream = stream
        if stream is not None:
            self.streams[stream] = actor

    def _start(self, team: Team, node: str, now: float) -> None:
        stage, part = team.stage, team.stage.part
        worker = self._hire(stage)
        # Once for all actors of a stage: what filters found in a whole data set may be large.
        if stage.name not in self._arguments:
            self._arguments[stage.name] = [self.ray.put(value) for value in worker.args]
        environment = {**_ENVIRONMENT, **part.runtime_env.get("env_vars", {})}
        remote = self.ray.remote(UnitActor).options(
            num_cpus=part.cpus,
            num_gpus=part.gpus,
            resources=part.resources or None,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={**part.runtime_env, "env_vars": environment},
        )
        handle = remote.remote(worker.func, *self._arguments[stage.name])
        actor = Hired(handle, stage.name, node, now, now)
        team.actors.add(actor)
        team.once_possible = True
        team.progress.actors = len(team.actors)
        self.room.take(part.wants, node)
        self.listen(actor, handle.load.options(num_returns="streaming").remote())

    def _make_room(self, name: str, now: float) -> bool:
        """Give up idle actors of other stages so that one more of stage `name` fits on some node.

        For a stage that has no actor yet any idle one goes; for one that would have more of them only what has
        been idle for a while, for it may get work again.
        """
        team = self.teams[name]
        first = not team.actors
        idlers = self._idlers(
            name, now, at_least=0.0 if first else _IDLE_WHERE_OTHERS_WAIT, keep_least=not first
        )
        by_node: dict[str, list[Hired]] = {}
        for actor in idlers:
            if actor.node is not None and actor.node in self.room.free:
                by_node.setdefault(actor.node, []).append(actor)
        for node, there in by_node.items():
            given = [self.teams[actor.stage].stage.part.wants for actor in there]
            for count in range(1, len(there) + 1):
                if not self.room.lacks(team.stage.part.wants, node, given[:count]):
                    for actor in there[:count]:
                        self.dismiss(actor)
                    return True
        return False

    def _idlers(self, name: str, now: float, *, at_least: float, keep_least: bool) -> list[Hired]:
        """Actors of other stages that have had nothing to do for so long, and for which there is nothing."""
        found: list[Hired] = []
        for other, team in self.teams.items():
            if other != name and team.idle and not self._ready(other):
                if keep_least:
                    found += self._beyond_least(team, now, at_least)
                else:
                    found += [actor for actor, since in team.idle.items() if now - since >= at_least]
        return found

    def _beyond_least(self, team: Team, now: float, at_least: float) -> list[Hired]:
        idle = [actor for actor, since in team.idle.items() if now - since >= at_least]
        return idle[: max(0, len(team.actors) - team.stage.part.least)]

    def _check_possible(self, team: Team, now: float) -> None:
        """A stage that no node could ever hold says so; one that a node could hold that has left waits for another."""
        part = team.stage.part
        if self.room.could_hold(part.wants):
            team.once_possible, team.waits_since = True, None
            return
        wants = ", ".join(
            f"{amount:g} {_NAMES.get(name, name)}" for name, amount in part.wants.items() if amount
        )
        if not (part.elastic or team.once_possible):
            raise SpecialistError(
                f"{team.stage.called} asks for {wants or 'no resources'} per actor, which no node of the cluster has",
                "lower `cpus` or `gpus` in the recipe, use another cluster, or write `actors: {max: N}` where nodes "
                "come and go",
            )
        if team.waits_since is None:
            team.waits_since = now
            self._note(f"{team.stage.called} waits for a node with {wants or 'anything'} free")
        elif now - team.waits_since > part.silence and not any(team.busy for team in self.teams.values()):
            raise ClusterError(
                f"{team.stage.called} waited {part.silence:g} seconds for a node with {wants}, and none came",
                "finished shards are kept; run the same command again when the cluster has such nodes",
            )
