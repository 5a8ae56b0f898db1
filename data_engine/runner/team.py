"""The actors of one stage, as the driver knows them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from data_engine.runner.plan import Stage
from data_engine.runner.progress import StageProgress

_TIMES_KEPT = 31


@dataclass(eq=False)
class Hired:
    """One actor as the driver sees it.

    `node` is None until Ray has placed it; until then it is thought to be on `assumed`. `hand` has the shards that
    it was given and has not done, and `began` says since when it is at the first of them (or was hired). `row`,
    `images` and `failures` are of that one.
    """

    handle: Any
    stage: str
    assumed: str | None
    began: float
    heard: float
    stream: Any = None
    node: str | None = None
    loaded: bool = False
    works: bool = False
    hand: deque[str] = field(default_factory=deque)
    row: int | None = None
    careful: bool = False
    copy: bool = False
    images: int = 0
    failures: int = 0


@dataclass
class Team:
    """The actors of one stage: all, those with nothing to do and since when, and how many have work.
    `took` are seconds per unit, of the last ones; `slow` how many units would be given a second actor."""

    stage: Stage
    progress: StageProgress
    actors: set[Hired] = field(default_factory=set)
    idle: dict[Hired, float] = field(default_factory=dict)
    busy: int = 0
    slow: int = 0
    failed_loads: int = 0
    took: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES_KEPT))
    waits_since: float | None = None
    once_possible: bool = False

    @property
    def usual(self) -> float | None:
        """The median of the last units' seconds, once there are three."""
        return sorted(self.took)[len(self.took) // 2] if len(self.took) >= 3 else None
