"""One image's rows while they are being changed: who hangs on whom, what was done to each, and what is gone.

Chance is a digest of the seed, the change and the true row's id, itself a digest of the image's id and of what
the row says. So what happens to a row depends on neither the batch nor the other rates, and a higher rate
changes the same rows and more.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_engine.annotation import Annotation

Box = tuple[float, float, float, float]


@dataclass(slots=True, eq=False)
class Line:
    """A row in the making. `key` is the id of the true row that it copies, longer for what was added.

    `row.parent` is only filled while the row hangs on one that is not on this page.
    """

    key: str
    row: Annotation
    parent: Line | None = None
    children: list[Line] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    gone: bool = False
    added: bool = False

    @property
    def box(self) -> Box:
        """Only for lines that have one."""
        x0, y0, x1, y1 = self.row.box or (0.0, 0.0, 0.0, 0.0)
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def is_score(self) -> bool:
        """Whether it judges its parent and says nothing else."""
        return self.row.text is None and self.row.box is None and self.row.mask is None

    def family(self) -> Iterator[Line]:
        """The line and all that hangs on it, parents first."""
        if not self.gone:
            yield self
            for child in self.children:
                yield from child.family()


@dataclass(frozen=True, slots=True)
class Lost:
    """A true row that the noisy source lacks, and the change that it lacks it for."""

    annotation_id: str
    kind: str
    change: str


@dataclass(frozen=True, slots=True)
class Noisy:
    """What the noisy source says of one image: `changes[i]` names what was done to `annotations[i]`, in order."""

    annotations: list[Annotation]
    changes: list[tuple[str, ...]]
    lost: list[Lost]


class Page:
    """`rows` are one image's annotation rows as dicts (data_engine.schema)."""

    def __init__(self, width: int, height: int, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
        self.width, self.height = width, height
        self._seed = seed
        self._lines: list[Line] = []
        self._lost: list[Lost] = []
        known: dict[str, Line] = {}
        for row in _parents_first(rows):
            parent = known.get(row["parent_id"] or "")
            outside = row["parent_id"] if parent is None else None
            said = Annotation(
                row["kind"],
                row["text"],
                row["granularity"],
                outside,
                None if row["span"] is None else (row["span"][0], row["span"][1]),
                row["box"],
                row["quad"],
                row["mask"],
                row["score"],
            )
            line = Line(row["annotation_id"], said, parent)
            known[line.key] = line
            self._lines.append(line)
            if parent is not None:
                parent.children.append(line)

    def lines(self) -> list[Line]:
        return [line for line in self._lines if not line.gone]

    def chance(self, change: str, line: Line) -> float:
        """In 0..1, uniform over lines; for the same line and change always the same."""
        return int.from_bytes(self._digest("chance", change, line.key)[:7]) / 2**56

    def rng(self, change: str, line: Line) -> np.random.Generator:
        """For how a change is made, apart from whether it is."""
        return np.random.default_rng(int.from_bytes(self._digest("how", change, line.key)[:16]))

    def _digest(self, *parts: str) -> bytes:
        return hashlib.sha256("/".join((str(self._seed), *parts)).encode()).digest()

    def touch(self, line: Line, change: str) -> None:
        """Note that a line's content was changed. What judged the old content goes."""
        line.changes.append(change)
        for child in line.children:
            if child.is_score:
                self.remove(child, change)

    def remove(self, line: Line, change: str) -> None:
        """Take a line out, with all that hangs on it."""
        for one in list(line.family()):
            one.gone = True
            if not one.added:
                self._lost.append(Lost(one.key, one.row.kind, change))

    def duplicate(self, line: Line, suffix: str) -> Line:
        """Add a copy of a line and of all that hangs on it, but for scores: nothing judged the copy."""
        family = [one for one in line.family() if not one.is_score]
        made: dict[int, Line] = {}
        for one in family:
            parent = line.parent if one is line else made.get(id(one.parent))
            if one is not line and parent is None:
                continue
            twin = Line(one.key + suffix, copy.copy(one.row), parent, changes=list(one.changes), added=True)
            if parent is not None:
                parent.children.append(twin)
            made[id(one)] = twin
        place = max(i for i, one in enumerate(self._lines) if id(one) in made) + 1
        self._lines[place:place] = made.values()
        return made[id(line)]

    def result(self) -> Noisy:
        lines = self.lines()
        for line in lines:
            if line.parent is not None:
                line.row.parent = line.parent.row
        return Noisy([line.row for line in lines], [tuple(line.changes) for line in lines], self._lost)


def _parents_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows in their order, but each after its parent: that one's source may come later in `needs`."""
    by_id = {row["annotation_id"]: row for row in rows}
    placed: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        chain: list[str] = []
        key: str | None = row["annotation_id"]
        while key is not None and key in by_id and key not in placed and key not in chain:
            chain.append(key)
            key = by_id[key]["parent_id"]
        placed.update((key, by_id[key]) for key in reversed(chain))
    return list(placed.values())
