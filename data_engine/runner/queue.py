"""Which units of a plan are ready, which wait for others, and how many are left."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from data_engine.runner.plan import Plan, Unit


class Queue:
    """The units of a plan that are not done. A unit is ready when the units of its shard that it needs are done.

    A number for each waiting unit, and one queue for each stage: what happens to a unit costs the same
    however many there are.
    """

    def __init__(self, plan: Plan) -> None:
        self.ready: dict[str, deque[str]] = {name: deque() for name in plan.stages}
        self.left: dict[str, int] = {name: len(stage.todo) for name, stage in plan.stages.items()}
        self.total_left = sum(self.left.values())
        self._waiting: dict[str, dict[str, int]] = {name: {} for name in plan.stages}
        self._users: dict[str, list[str]] = {
            name: [user.name for user in plan.stages.values() if name in user.needs] for name in plan.stages
        }
        todo = {name: frozenset(stage.todo) for name, stage in plan.stages.items()}
        for name, stage in plan.stages.items():
            waiting, ready = self._waiting[name], self.ready[name]
            needed = [todo[need] for need in dict.fromkeys(stage.needs)]
            for shard in stage.todo:
                needs = sum(shard in units for units in needed)
                if needs:
                    waiting[shard] = needs
                else:
                    ready.append(shard)

    def put_back(self, name: str, shards: Sequence[str]) -> None:
        """Shards that were taken and not done come first, in their order."""
        self.ready[name].extendleft(reversed(shards))

    def finished(self, unit: Unit) -> list[str]:
        """A unit is done; the names of the stages of which a unit became ready."""
        self._leave(unit.specialist, 1)
        woken = []
        for user in self._users[unit.specialist]:
            waiting = self._waiting[user]
            needs = waiting.get(unit.shard)
            if needs is None:
                continue
            if needs > 1:
                waiting[unit.shard] = needs - 1
            else:
                del waiting[unit.shard]
                self.ready[user].append(unit.shard)
                woken.append(user)
        return woken

    def give_up(self, unit: Unit) -> Iterator[tuple[Unit, str | None]]:
        """A unit that was taken will not be done, and neither will what needs it: it, and those with what they need."""
        self._leave(unit.specialist, 1)
        yield unit, None
        lost = [unit]
        while lost:
            gone = lost.pop()
            for user in self._users[gone.specialist]:
                if self._waiting[user].pop(gone.shard, None) is not None:
                    self._leave(user, 1)
                    lost.append(Unit(user, gone.shard))
                    yield lost[-1], gone.specialist

    def done_elsewhere(self, units: Iterable[Unit]) -> list[Unit]:
        """Drop units that another run has done meanwhile; those that were dropped. Taken ones are let be."""
        by_stage: dict[str, set[str]] = {}
        for unit in units:
            by_stage.setdefault(unit.specialist, set()).add(unit.shard)
        dropped: list[Unit] = []
        for name, shards in by_stage.items():
            ready = self.ready.get(name, ())
            found = [shard for shard in ready if shard in shards]
            if found:
                gone = set(found)
                self.ready[name] = deque(shard for shard in ready if shard not in gone)
            waiting = self._waiting.get(name, {})
            found += [shard for shard in shards if waiting.pop(shard, None) is not None]
            dropped += [Unit(name, shard) for shard in found]
        for unit in dropped:
            self.finished(unit)
        return dropped

    def _leave(self, name: str, count: int) -> None:
        self.left[name] -= count
        self.total_left -= count
