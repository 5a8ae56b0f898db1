"""Work that is done in the background and handed over in order."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

_A = TypeVar("_A")
_K = TypeVar("_K")
_T = TypeVar("_T")

AHEAD = 8
"""Pieces in work or waiting, for each process."""


def prefetched(
    build: Callable[[_A], Callable[[_K], _T]], argument: _A, wanted: Iterable[_K], processes: int
) -> Iterator[_T]:
    """`build(argument)(key)` for each key of `wanted`, in its order.

    With `processes` 0 each is made here when it is asked for. Otherwise every process builds its own maker,
    and some keys are taken from `wanted` ahead; `build` must be a function of a module.
    """
    if processes == 0:
        make = build(argument)
        for key in wanted:
            yield make(key)
        return
    keys = iter(wanted)
    # Spawned rather than forked: a fork of a process with torch's threads may hang.
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_start, initargs=(build, argument)
    ) as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            while True:
                while len(waiting) < AHEAD * processes:
                    try:
                        waiting.append(pool.submit(_make, next(keys)))
                    except StopIteration:
                        break
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_makers: list[Callable[[Any], Any]] = []  # one, in a background process


def _start(build: Callable[[Any], Callable[[Any], Any]], argument: Any) -> None:
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _makers[:] = [build(argument)]


def _end_with_the_parent() -> None:
    """A pool's processes wait for work for ever; where the parent was killed nobody would end them."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(key: Any) -> Any:
    return _makers[0](key)
