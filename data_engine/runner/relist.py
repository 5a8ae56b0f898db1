"""What other runs on the same data set have finished meanwhile, looked up beside the run."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from data_engine.errors import FdeError
from data_engine.runner.plan import Plan, Unit

_EVERY_SECONDS = 30.0
_SHARE = 10
"""At most a tenth of the time is spent on it: listing 100,000 objects of a store takes seconds."""


class Relist:
    """Calls `Plan.refresh` in a thread every 30 seconds or so: the loop must not wait for a listing."""

    def __init__(self, plan: Plan) -> None:
        self._refresh = getattr(plan, "refresh", None)
        self._thread: ThreadPoolExecutor | None = None
        self._listing: Future[Any] | None = None
        self._began = self._next = float("-inf")

    def found(self, now: float) -> list[Unit]:
        """Units that others have finished, as far as a listing has come back since the last call."""
        if self._refresh is None:
            return []
        if self._next == float("-inf"):  # the plan itself has just been made
            self._next = now + _EVERY_SECONDS
        if self._listing is not None:
            if not self._listing.done():
                return []
            listing, self._listing = self._listing, None
            self._next = now + max(_EVERY_SECONDS, _SHARE * (now - self._began))
            return _units(listing)
        if now >= self._next:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="relist")
            self._began, self._listing = now, self._thread.submit(self._refresh)
        return []

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _units(listing: Future[Iterable[tuple[str, str]]]) -> list[Unit]:
    try:
        return [Unit(stage, shard) for stage, shard in listing.result()]
    except FdeError:  # a store that does not answer now: units are done twice at worst
        return []
