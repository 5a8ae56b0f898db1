"""What is to be done: which shards of which specialist are missing, current or stale."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.fingerprint import specialist_fingerprints
from data_engine.ledger import Found, Ledger, find
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.storage import Stamp

_LISTINGS = 8
"""Folders that are listed at once: a store gives a thousand names at a time."""


@dataclass(frozen=True)
class Unit:
    """One piece of work: one specialist over one shard. Its output is one file, there or not."""

    specialist: str
    shard: str


@dataclass
class Stage:
    """One specialist's share of a run. `needs` are the specialists of this plan that it waits for.

    `label` is what errors call it where it is no specialist, `folder` where its output lies: empty where nobody
    remembers what is in it (data_engine.ledger).
    """

    name: str
    part: SpecialistPart
    fingerprint: str
    todo: list[str]
    current: int
    stale: int
    needs: list[str] = field(default_factory=list)
    label: str = ""
    folder: str = ""

    @property
    def called(self) -> str:
        return self.label or f"specialists.{self.name}"


Hire = Callable[[Stage], "partial[Any]"]
"""Gives what makes a worker of a stage: an object with `load` and `run`, as data_engine.runner.work.Worker has
them, that is cheap to make and travels to other processes."""


@dataclass
class Plan:
    """Stages in an order in which each comes after those that it needs.

    `ledger` remembers what is finished, where there is one, and `found` is what lay in the stages' folders.
    """

    stages: dict[str, Stage]
    ledger: Ledger | None = None
    found: dict[str, Found] = field(default_factory=dict)
    _done: dict[str, set[str]] = field(default_factory=dict)
    _seen: dict[str, dict[str, Stamp]] = field(default_factory=dict)

    @property
    def units(self) -> int:
        return sum(len(stage.todo) for stage in self.stages.values())

    def finished(self, unit: Unit, stamp: Stamp | None) -> None:
        """A unit's output is in place, its file with this stamp where that is known."""
        self._done.setdefault(unit.specialist, set()).add(unit.shard)
        stage = self.stages[unit.specialist]
        if self.ledger is not None and stage.folder and stamp is not None:
            self.ledger.add(stage.folder, unit.shard, stage.fingerprint, stamp)

    def keep(self) -> None:
        """Remember what was found, so that the next start need not look into the same files."""
        if self.ledger is not None:
            for found in self.found.values():
                self.ledger.keep(found)

    def flush(self) -> None:
        """Write down what is finished; the last thing that a run does with its plan."""
        if self.ledger is not None:
            self.ledger.flush()

    def refresh(self) -> list[tuple[str, str]]:
        """List again the stages that have units left: (stage, shard) of those whose output is there now.

        Another driver's, or this one's own of which the news is still under way. What a stale listing does not
        show yet is left out: that unit is done twice, to the same rows. May be called beside the run, by one
        thread at a time. Raises StorageError where the store is out of reach.
        """
        there: list[tuple[str, str]] = []
        for name, found in self.found.items():
            stage, done = self.stages[name], self._done.get(name, set())
            left = {shard for shard in stage.todo if shard not in done}
            if not left or self.ledger is None:
                continue
            seen = self._seen.setdefault(name, dict(found.stamps))
            again = find(self.ledger.store, stage.folder, left, seen)
            seen.update(again.stamps)
            said = again.fingerprints
            there += [(name, shard) for shard in sorted(said) if said[shard] == stage.fingerprint]
        return there


def make_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """Compare what the data set holds with what the recipe asks for, by fingerprint.

    Raises RecipeError when a specialist needs labels that the data set does not have.
    """
    fingerprints = specialist_fingerprints(recipe, dataset)
    for name in recipe.ordered():
        for need in recipe.specialists[name].needs:
            if need not in recipe.specialists and need not in dataset.info.labels:
                have = ", ".join(dataset.info.labels) or "none"
                raise RecipeError(
                    f"specialists.{name} needs {need!r}, but the data set has no such labels (it has: {have})",
                    "remove it from `needs`, or ingest a source that has them",
                )
    shards = dataset.shards
    known = frozenset(shards)
    names = recipe.ordered()
    with ThreadPoolExecutor(_LISTINGS) as pool:
        looked = pool.map(lambda name: find(dataset.store, f"annotations/{name}", known), names)
        found = dict(zip(names, looked, strict=True))
    stages: dict[str, Stage] = {}
    for name in names:
        said, wanted = found[name].fingerprints, fingerprints[name]
        todo = [shard for shard in shards if said.get(shard) != wanted]
        current = len(shards) - len(todo)
        stages[name] = Stage(
            name=name,
            part=recipe.specialists[name],
            fingerprint=wanted,
            todo=todo,
            current=current,
            stale=len(said) - current,
            needs=[need for need in recipe.specialists[name].needs if need in recipe.specialists],
            folder=f"annotations/{name}",
        )
    return Plan(stages, Ledger(dataset.store), found)
