"""What actors have in hand: units given, told of, given back, and counted once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from data_engine.runner.hiring import Crew
from data_engine.runner.plan import Unit
from data_engine.runner.progress import Note
from data_engine.runner.queue import Queue
from data_engine.runner.team import Hired, Team
from data_engine.runner.trouble import Troubles
from data_engine.runner.work import Beat, Done
from data_engine.storage import Stamp

_REPORT_SECONDS = 0.5
_REPORTS_A_SECOND = 200
"""Signs of life of all actors together: with more than a hundred actors each gives fewer."""

_HAND_SECONDS = 1.0
_MOST_IN_HAND = 256

_STRAGGLER_SECONDS = 30.0
_STRAGGLER_TIMES = 3.0


class Hands:
    """Gives units to actors and takes account of them.

    A unit is in one hand, or in two where the first is slow. Then the second actor is a `copy`: what it tells
    of the unit counts only when it is done first.
    """

    def __init__(
        self,
        crew: Crew,
        queue: Queue,
        troubles: Troubles,
        note: Note,
        finished: Callable[[Unit, Stamp | None], None],
    ) -> None:
        self.crew = crew
        self.queue = queue
        self.troubles = troubles
        self.note = note
        self.finished = finished
        self.holders: dict[Unit, list[Hired]] = {}

    def assign(self, now: float) -> None:
        """Give what is ready to actors that have nothing to do; dismiss those of stages with nothing left."""
        for name, team in self.crew.teams.items():
            if not self.queue.left[name]:
                for actor in list(team.actors):  # one that still works does what another has done
                    self.crew.dismiss(actor)
            while team.idle and self.queue.ready[name]:
                actor, _ = team.idle.popitem()
                actor.copy = False
                self._give(team, actor, self._next_hand(name, team), now)

    def help_slow(self, now: float) -> None:
        """Give units that take far too long to a second actor, where one has nothing else to do."""
        for name, team in self.crew.teams.items():
            team.slow = 0
            if self.queue.ready[name] or team.usual is None:
                continue
            limit = max(_STRAGGLER_SECONDS, _STRAGGLER_TIMES * team.usual)
            for actor in [actor for actor in team.actors if actor.hand and now - actor.began > limit]:
                alone = [shard for shard in actor.hand if self._alone(Unit(name, shard))]
                if alone and not team.idle:
                    team.slow += 1
                elif alone:
                    second, _ = team.idle.popitem()
                    second.copy = True
                    self._give(team, second, alone, now)
                    team.progress.stragglers += len(alone)
                    self.note(
                        f"{name} {alone[0]} is not done after {now - actor.began:.0f} seconds, where "
                        f"{team.usual:.1f} are usual: another actor tries it too",
                        stage=name,
                        shard=alone[0],
                    )

    def told(self, actor: Hired, event: Beat | Done) -> list[str]:
        """An actor says what it did. Names of stages of which a unit became ready."""
        progress = self.crew.teams[actor.stage].progress
        if isinstance(event, Beat):
            actor.row = event.row
            actor.images += event.images
            actor.failures += event.failures
            if not actor.copy:
                progress.count(event)
            return []
        unit = Unit(actor.stage, actor.hand[0])
        others = self.holders.pop(unit, None)
        woken: list[str] = []
        if others is None:  # another actor was first
            self._uncount(actor)
        else:
            others.remove(actor)
            for other in others:
                if other.hand[0] == unit.shard:
                    self._uncount(other)
            if actor.copy:
                progress.count(Beat(actor.images, actor.failures, 0))
            progress.count(event)
            woken = self._done(unit, event)
            for other in others:
                if not any(Unit(other.stage, shard) in self.holders for shard in other.hand):
                    self.crew.dismiss(other)
        actor.hand.popleft()
        actor.began = actor.heard
        actor.row, actor.images, actor.failures = None, 0, 0
        return woken

    def rest(self, actor: Hired, now: float) -> None:
        """An actor's call is over, whatever it has done of it."""
        team = self.crew.teams[actor.stage]
        if actor in team.actors:
            team.busy -= 1
            actor.works = False
            actor.hand.clear()
            self.crew.listen(actor, None)
            team.idle[actor] = now

    def let_go(self, actor: Hired) -> list[str]:
        """An actor will not do what it has in hand: the shards that no other actor has. Its counts are taken back."""
        progress = self.crew.teams[actor.stage].progress
        self._uncount(actor)
        mine = []
        for shard in actor.hand:
            unit = Unit(actor.stage, shard)
            holders = self.holders.get(unit)
            if holders is None:
                continue
            holders.remove(actor)
            if not holders:
                del self.holders[unit]
                progress.running.pop(shard, None)
                mine.append(shard)
            elif holders[0].copy:
                holders[0].copy = False
                progress.count(Beat(holders[0].images, holders[0].failures, 0))
        return mine

    def give_up(self, unit: Unit, why: str) -> None:
        """This unit will not be done in this run, and neither will what needs it."""
        self.troubles.over(unit)
        for lost, need in self.queue.give_up(unit):
            reason = why if need is None else f"it needs {need}"
            progress = self.crew.teams[lost.specialist].progress
            progress.give_up(lost.shard, reason)
            self.note(
                f"{lost.specialist} {lost.shard} failed: {reason}", stage=lost.specialist, shard=lost.shard
            )

    def _alone(self, unit: Unit) -> bool:
        return len(self.holders.get(unit, ())) == 1 and self.troubles.get(unit) is None

    def _next_hand(self, name: str, team: Team) -> list[str]:
        """What one actor does in a second or between two reports, of ready units; one at least."""
        ready = self.queue.ready[name]
        hand = [ready.popleft()]
        if team.usual is None or self.troubles.get(Unit(name, hand[0])) is not None:
            return hand
        seconds = max(_HAND_SECONDS, self._report_seconds())
        share = len(ready) // (2 * len(team.actors))  # so that all have something to do until the end
        count = min(int(seconds / max(team.usual, 1e-3)), share, _MOST_IN_HAND)
        while len(hand) < count and self.troubles.get(Unit(name, ready[0])) is None:
            hand.append(ready.popleft())
        return hand

    def _report_seconds(self) -> float:
        return max(_REPORT_SECONDS, len(self.crew.streams) / _REPORTS_A_SECOND)

    def _give(self, team: Team, actor: Hired, hand: Sequence[str], now: float) -> None:
        trouble = self.troubles.get(Unit(actor.stage, hand[0]))
        careful = None if trouble is None else trouble.careful
        for shard in hand:
            self.holders.setdefault(Unit(actor.stage, shard), []).append(actor)
            team.progress.running.setdefault(shard, now)
        actor.hand, actor.row, actor.careful = deque(hand), None, careful is not None
        actor.images = actor.failures = 0
        actor.began = actor.heard = now
        team.busy += 1
        actor.works = True
        # Back-pressure of one: a careful unit goes on to the next picture only when its Beat was
        # read by the driver, so the last Beat names the picture that was in hand at a death.
        call = actor.handle.run.options(
            num_returns="streaming", _generator_backpressure_num_objects=1 if careful else -1
        )
        self.crew.listen(actor, call.remote(list(hand), careful, self._report_seconds()))
        if team.progress.started is None:
            team.progress.started = now

    def _done(self, unit: Unit, done: Done) -> list[str]:
        team = self.crew.teams[unit.specialist]
        team.took.append(done.seconds)
        team.progress.running.pop(unit.shard, None)
        team.progress.unit_seconds.append(done.seconds)
        self.troubles.over(unit)
        self.finished(unit, done.stamp)
        return self.queue.finished(unit)

    def _uncount(self, actor: Hired) -> None:
        """Take back what was counted of an unfinished unit."""
        if not actor.copy:
            progress = self.crew.teams[actor.stage].progress
            progress.images -= actor.images
            progress.failures -= actor.failures
        actor.images = actor.failures = 0
