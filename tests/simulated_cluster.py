"""A cluster of any size whose time is only counted: exactly the part of Ray's interface that the runner uses.

Actors run the runner's own UnitActor with a worker that does nothing but count its seconds. Time is what the
driver's own code takes of the processor, and what it waits; waiting is skipped. So a driver of ten thousand
actors is measured in seconds, and faults can be had at any moment.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ray import exceptions

from data_engine.runner.actor import UnitActor
from data_engine.runner.work import Beat, Careful, Done

MISSING = object()


class Died(BaseException):
    """Raised by a stub worker: its process is gone."""


class Hangs(BaseException):
    """Raised by a stub worker: it will never say anything again."""


class StubWorker:
    """A specialist that takes `seconds` for a shard, on the clock of the actor that it is in.

    `fault` is asked at each unit for what happens instead: None, Died, Hangs, or so many seconds.
    """

    def __init__(
        self, seconds: float, loading: float = 0.0, fault: Callable[[str], Any] = lambda shard: None
    ) -> None:
        self.seconds, self.loading, self.fault = seconds, loading, fault
        self.clock = 0.0

    def load(self) -> None:
        self.clock += self.loading

    def run(self, shard: str, careful: Careful | None = None) -> Iterator[Beat | Done]:
        fault = self.fault(shard)
        if isinstance(fault, float):
            self.clock += fault
        else:
            self.clock += self.seconds
            if fault is not None:
                raise fault
        yield Beat(1, 0, 1)
        yield Done(1, 0, 1)


@dataclass(eq=False)
class Stream:
    """What an actor will say, and when."""

    actor: Actor
    messages: deque[tuple[float, Any]] = field(default_factory=deque)
    ends: float = math.inf
    wanted: bool = True

    def __next__(self) -> Any:
        with self.actor.cluster.apart():
            return self.actor.cluster.pop(self)


@dataclass(eq=False)
class Actor:
    cluster: SimulatedRay
    inside: UnitActor
    wants: dict[str, float]
    node: str | None = None
    alive: bool = True
    free_at: float = 0.0
    last: Stream | None = None

    @property
    def load(self) -> Method:
        return Method(self, self._load)

    @property
    def run(self) -> Method:
        return Method(self, self._run)

    def _load(self) -> Iterator[Any]:
        yield self.node
        self.inside.worker.load()
        yield ""

    def _run(self, shards: list[str], careful: Careful | None, every: float) -> Iterator[Any]:
        self.cluster.careful.append(careful is not None)
        return self.inside.run(shards, careful, every, clock=lambda: self.inside.worker.clock)


@dataclass
class Method:
    actor: Actor
    function: Callable[..., Iterator[Any]]

    def options(self, **_: Any) -> Method:
        return self

    def remote(self, *args: Any) -> Stream:
        with self.actor.cluster.apart():
            return self.actor.cluster.call(self.actor, lambda: self.function(*args))


class SimulatedRay:
    """Stands where the module `ray` does, for the runner's Cluster, and for the clock. `add_node` and `remove_node` may be called at any time,
    or at a moment with `at`."""

    exceptions = exceptions

    def __init__(self) -> None:
        self._skipped = self._own = self._at_entry = self._entered = 0.0
        self._deep = 0
        self._began = time.process_time()
        self._heap: list[tuple[float, int, Any]] = []
        self._count = itertools.count()
        self._ready: dict[Stream, None] = {}
        self._nodes: dict[str, dict[str, Any]] = {}
        self._free: dict[str, dict[str, float]] = {}
        self._pending: list[tuple[Actor, Stream, Callable[[], Iterator[Any]]]] = []
        self.actors: list[Actor] = []
        self.asked: list[list[dict[str, float]]] = []
        self.careful: list[bool] = []
        self.most_actors = self.messages = 0

    # The clock.

    def monotonic(self) -> float:
        return self._skipped + self.driver_seconds

    def sleep(self, seconds: float) -> None:
        with self.apart():
            self._skip_to(self._now + seconds)
            self._settle()

    @property
    def driver_seconds(self) -> float:
        """Processor time of the driver so far, without the simulation's."""
        return time.process_time() - self._began - self._own

    def apart(self) -> _Apart:
        return _Apart(self)

    # Nodes.

    def at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (moment, next(self._count), action))

    def add_node(self, name: str, **resources: float) -> None:
        self._nodes[name] = {"NodeID": name, "Alive": True, "Resources": resources}
        self._free[name] = dict(resources)
        self._place()

    def remove_node(self, name: str, news_after: float = 0.0) -> None:
        """A node goes away. With `news_after`, its actors are found dead so long before it is."""
        self._free.pop(name, None)
        why = (
            f"its node has died. Node Id: {name}"
            if not news_after
            else "connection error code 2. End of file"
        )
        for actor in [a for a in self.actors if a.node == name and a.alive]:
            self._end(actor, f"The actor died because {why}")
        self.at(self._now + news_after, lambda: self._nodes[name].update(Alive=False))

    def answers(self) -> bool:
        return True

    def check(self) -> None: ...

    def ask_for(self, bundles: list[dict[str, float]]) -> None:
        self.asked.append(bundles)

    def nodes(self) -> list[dict[str, Any]]:
        return list(self._nodes.values())

    # Actors.

    def put(self, value: Any) -> Any:
        return value

    def remote(self, cls: type) -> SimulatedRay:
        assert cls is UnitActor
        return self

    def options(self, *, num_cpus: float, num_gpus: float, resources: Any, **_: Any) -> _Maker:
        return _Maker(self, {"CPU": num_cpus, "GPU": num_gpus, **(resources or {})})

    def call(self, actor: Actor, begin: Callable[[], Iterator[Any]]) -> Stream:
        if actor.last is not None:
            actor.last.wanted = False
            self._ready.pop(actor.last, None)
        stream = actor.last = Stream(actor)
        if not actor.alive:
            self._say(stream, self._now, exceptions.ActorDiedError())
        elif actor.node is None:
            self._pending.append((actor, stream, begin))
            self._place()
        else:
            self._work(actor, stream, begin)
        return stream

    def kill(self, actor: Actor) -> None:
        with self.apart():
            self._end(actor, None)

    # Waiting.

    def wait(
        self, streams: list[Stream], *, num_returns: int, timeout: float
    ) -> tuple[list[Stream], list[Stream]]:
        with self.apart():
            until = self._now + timeout
            self._settle()
            while not any(stream in self._ready for stream in streams) and self._now < until:
                self._skip_to(min(until, self._heap[0][0]) if self._heap else until)
                self._settle()
            found = [stream for stream in streams if stream in self._ready][:num_returns]
            return found, []

    def get(self, value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    def pop(self, stream: Stream) -> Any:
        _, message = stream.messages.popleft()
        self.messages += 1
        del self._ready[stream]
        if stream.messages:
            heapq.heappush(self._heap, (stream.messages[0][0], next(self._count), stream))
        if message is MISSING:
            raise StopIteration
        return message

    # Inside.

    @property
    def _now(self) -> float:
        return self._skipped + self._at_entry if self._deep else self.monotonic()

    def _skip_to(self, moment: float) -> None:
        self._skipped += max(0.0, moment - self._now)

    def _settle(self) -> None:
        while self._heap and self._heap[0][0] <= self._now:
            _, _, what = heapq.heappop(self._heap)
            if not isinstance(what, Stream):
                what()
            elif what.wanted:
                self._ready[what] = None

    def _say(self, stream: Stream, moment: float, message: Any) -> None:
        stream.messages.append((moment, message))
        if len(stream.messages) == 1:
            heapq.heappush(self._heap, (moment, next(self._count), stream))

    def _work(self, actor: Actor, stream: Stream, begin: Callable[[], Iterator[Any]]) -> None:
        worker = actor.inside.worker
        worker.clock = max(self._now, actor.free_at)
        try:
            for message in begin():
                self._say(stream, worker.clock, message)
            stream.ends = worker.clock
            self._say(stream, worker.clock, MISSING)
        except Died:
            self.at(worker.clock, lambda: self._end(actor, "the process died"))
        except Hangs:
            worker.clock = float("inf")
        actor.free_at = worker.clock

    def _place(self) -> None:
        waiting, self._pending = self._pending, []
        for actor, stream, begin in waiting:
            if not actor.alive:
                continue
            if actor.node is None:
                for name, free in self._free.items():
                    if all(amount <= free.get(key, 0.0) + 1e-6 for key, amount in actor.wants.items()):
                        actor.node = name
                        for key, amount in actor.wants.items():
                            free[key] = free.get(key, 0.0) - amount
                        break
            if actor.node is None:
                self._pending.append((actor, stream, begin))
            else:
                self._work(actor, stream, begin)

    def _end(self, actor: Actor, why: str | None) -> None:
        if not actor.alive:
            return
        actor.alive = False
        self.actors.remove(actor)
        if actor.node in self._free:
            for key, amount in actor.wants.items():
                self._free[actor.node][key] = self._free[actor.node].get(key, 0.0) + amount
        stream = actor.last
        if stream is not None and stream.ends > self._now:
            # What it would have said later is never said.
            stream.messages = deque(m for m in stream.messages if m[0] <= self._now)
            stream.wanted = why is not None
            if why is not None:
                self._say(stream, self._now, _died(why))
            else:
                self._ready.pop(stream, None)
        self._place()


def _died(why: str) -> Exception:
    error = exceptions.ActorDiedError()
    error.args = (why,)
    error.error_msg = why
    return error


class _Maker:
    def __init__(self, cluster: SimulatedRay, wants: dict[str, float]) -> None:
        self.cluster, self.wants = cluster, wants

    def remote(self, make: Callable[..., Any], *args: Any) -> Actor:
        with self.cluster.apart():
            actor = Actor(self.cluster, UnitActor(make, *args), self.wants)
            self.cluster.actors.append(actor)
            self.cluster.most_actors = max(self.cluster.most_actors, len(self.cluster.actors))
            return actor


class _Apart:
    """Time that the simulation itself takes is not the driver's."""

    def __init__(self, cluster: SimulatedRay) -> None:
        self.cluster = cluster

    def __enter__(self) -> None:
        cluster = self.cluster
        if cluster._deep == 0:
            cluster._at_entry = cluster.driver_seconds
            cluster._entered = time.process_time()
        cluster._deep += 1

    def __exit__(self, *_: object) -> None:
        cluster = self.cluster
        cluster._deep -= 1
        if cluster._deep == 0:
            cluster._own += time.process_time() - cluster._entered
