"""What lives in an actor: a worker, and the few messages in which it tells the driver what it did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data_engine.runner.work import Beat, Careful, Done


@dataclass(frozen=True, slots=True)
class Report:
    """What happened since the last report, in order. `last` says that all units of the call are done."""

    events: tuple[Beat | Done, ...]
    last: bool


class UnitActor:
    """Holds what `make` makes (see `data_engine.runner.plan.Hire`), and runs units with it."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self.worker = make(*args)

    def load(self) -> Iterator[str]:
        """The id of the node that this actor came to, at once; ends when the worker is loaded."""
        import ray

        yield ray.get_runtime_context().get_node_id()
        self.worker.load()
        yield ""

    def run(
        self,
        shards: Sequence[str],
        careful: Careful | None,
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[Report]:
        """Do units one after the other. Events are held back and told together every `every` seconds, so that
        short units cost the driver no message each; with `careful` each is told before anything else is done.

        What a worker raises ends the call, after what was done before it has been told.
        """
        held: list[Beat | Done] = []
        told = clock()
        try:
            for shard in shards:
                started = clock()
                for event in self.worker.run(shard, careful):
                    now = clock()
                    held.append(replace(event, seconds=now - started) if isinstance(event, Done) else event)
                    if careful is not None or now - told >= every:
                        yield Report(tuple(held), last=False)
                        held, told = [], now
        except Exception:
            if held:
                yield Report(tuple(held), last=False)
            raise
        yield Report(tuple(held), last=True)
