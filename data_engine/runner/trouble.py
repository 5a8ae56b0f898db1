"""Units whose actor died: which of them are run with care, and which picture is to blame."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import dataclass

from data_engine.runner.plan import Unit
from data_engine.runner.work import Careful

_DEATHS_BEFORE_CARE = 2
_FRUITLESS_DEATHS = 10

_NODE_DEATHS = 10
"""So many nodes may go away under a unit before it is suspected of taking them along (by their memory, say).
On spot nodes a long unit may see several without any fault of its own."""

_NODE_NEWS_SECONDS = 60.0


@dataclass
class Trouble:
    """What is known of a unit that lost its actor. `fruitless` counts deaths since something was learnt,
    `nodes` those of whole nodes, which prove nothing."""

    deaths: int = 0
    fruitless: int = 0
    nodes: int = 0
    start: int = 0
    suspect: str | None = None
    skip: tuple[str, ...] = ()

    @property
    def careful(self) -> Careful | None:
        return Careful(self.start, self.skip) if self.deaths >= _DEATHS_BEFORE_CARE else None

    @property
    def hopeless(self) -> bool:
        return self.fruitless >= _FRUITLESS_DEATHS

    def node_died(self) -> bool:
        """A node went away under the unit. False where it did so too often to be taken for chance."""
        self.nodes += 1
        return self.nodes <= _NODE_DEATHS

    def died(self, *, careful: bool, row: int | None, in_hand: str | None) -> str | None:
        """The process died. `row` is the last that it named, `in_hand` the image that it had alone in hand.

        Gives the image that is to blame and will be left out: one that was alone in hand at two deaths.
        """
        self.deaths += 1
        self.fruitless += 1
        if in_hand is not None and in_hand == self.suspect:
            self.skip, self.suspect, self.fruitless = (*self.skip, in_hand), None, 0
            return in_hand
        self.suspect = in_hand
        if not careful:
            self.start = row or 0
        return None


class Troubles:
    """All units in trouble. Each of them is given to an actor alone, so that a death is its own."""

    def __init__(self) -> None:
        self._units: dict[Unit, Trouble] = {}
        self._deaths: deque[tuple[float, Unit, str]] = deque()

    def of(self, unit: Unit) -> Trouble:
        return self._units.setdefault(unit, Trouble())

    def get(self, unit: Unit) -> Trouble | None:
        return self._units.get(unit)

    def remember(self, unit: Unit, node: str | None, now: float) -> None:
        """A death was held against a unit. Ray knows of a node that is gone some seconds later than of its actors."""
        if node is not None:
            self._deaths.append((now, unit, node))

    def forgive(self, nodes: Container[str], now: float) -> None:
        """Take back what was held against units of late where the whole node is none of these any more."""
        for _ in range(len(self._deaths)):
            when, unit, node = self._deaths.popleft()
            trouble = self._units.get(unit)
            if trouble is None or now - when > _NODE_NEWS_SECONDS:
                continue
            if node in nodes:
                self._deaths.append((when, unit, node))
            elif trouble.deaths and trouble.node_died():
                trouble.deaths -= 1
                trouble.fruitless = max(0, trouble.fruitless - 1)

    def over(self, unit: Unit) -> None:
        self._units.pop(unit, None)
