"""What is free on each node of a cluster, by what was hired there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_EPSILON = 1e-6

Wants = Mapping[str, float]
"""What one actor takes of a node, by Ray's names of resources."""


class Room:
    """The nodes that are alive, by id: what each has, and what of it is free.

    Counted from what this run hired, not from what Ray says is free: an actor that is still being placed
    holds nothing yet, and would be hired a second time. An actor must fit on one node, not on their sum.
    """

    def __init__(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """`nodes` as `ray.nodes()` gives them."""
        self.total: dict[str, dict[str, float]] = {
            node["NodeID"]: dict(node["Resources"]) for node in nodes if node["Alive"]
        }
        self.free = {node: dict(has) for node, has in self.total.items()}
        self._order = list(self.free)
        self._next = 0

    def fits(self, wants: Wants) -> str | None:
        """A node where an actor fits now: where the last one fitted, or the next that has room."""
        for at in (*range(self._next, len(self._order)), *range(self._next)):
            node: str = self._order[at]
            if _covers(self.free[node], wants):
                self._next = at
                return node
        return None

    def could_hold(self, wants: Wants) -> bool:
        """Whether some node could hold such an actor if it were empty."""
        return any(_covers(has, wants) for has in self.total.values())

    def take(self, wants: Wants, node: str | None) -> None:
        """Count an actor on a node; one whose node is not known (any more) is not counted."""
        self._add(wants, node, -1.0)

    def give(self, wants: Wants, node: str | None) -> None:
        self._add(wants, node, 1.0)

    def lacks(self, wants: Wants, node: str, given: Iterable[Wants]) -> bool:
        """Whether an actor does not fit on a node even when those that want `given` have left it."""
        free = dict(self.free[node])
        for one in given:
            for name, amount in one.items():
                free[name] = free.get(name, 0.0) + amount
        return not _covers(free, wants)

    def _add(self, wants: Wants, node: str | None, sign: float) -> None:
        free = self.free.get(node) if node is not None else None
        if free is not None:
            for name, amount in wants.items():
                free[name] = free.get(name, 0.0) + sign * amount


def _covers(free: Mapping[str, float], wants: Wants) -> bool:
    return all(amount <= free.get(name, 0.0) + _EPSILON for name, amount in wants.items())
