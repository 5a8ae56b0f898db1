"""What is to be done: which shards of which specialist are missing, current or stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.fingerprint import specialist_fingerprints
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.shards import read_provenances


@dataclass(frozen=True)
class Unit:
    """One piece of work: one specialist over one shard. Its output is one file, there or not."""

    specialist: str
    shard: str


@dataclass
class Stage:
    """One specialist's share of a run. `needs` are the specialists of this plan that it waits for.

    `label` is what errors call it where it is no specialist.
    """

    name: str
    part: SpecialistPart
    fingerprint: str
    todo: list[str]
    current: int
    stale: int
    needs: list[str] = field(default_factory=list)
    label: str = ""

    @property
    def called(self) -> str:
        return self.label or f"specialists.{self.name}"


Hire = Callable[[Stage], "partial[Any]"]
"""Gives what makes a worker of a stage: an object with `load` and `run`, as data_engine.runner.work.Worker has
them, that is cheap to make and travels to other processes."""


@dataclass
class Plan:
    """Stages in an order in which each comes after those that it needs."""

    stages: dict[str, Stage]

    @property
    def units(self) -> int:
        return sum(len(stage.todo) for stage in self.stages.values())


def make_plan(recipe: Recipe, dataset: Dataset) -> Plan:
    """Compare what the data set holds with what the recipe asks for, by fingerprint.

    Raises RecipeError when a specialist needs labels that the data set does not have.
    """
    fingerprints = specialist_fingerprints(recipe, dataset)
    stages: dict[str, Stage] = {}
    for name in recipe.ordered():
        part = recipe.specialists[name]
        for need in part.needs:
            if need not in recipe.specialists and need not in dataset.info.labels:
                have = ", ".join(dataset.info.labels) or "none"
                raise RecipeError(
                    f"specialists.{name} needs {need!r}, but the data set has no such labels (it has: {have})",
                    "remove it from `needs`, or ingest a source that has them",
                )
        there = set(dataset.store.files(f"annotations/{name}"))
        made = [shard for shard in dataset.shards if f"{shard}.parquet" in there]
        found = read_provenances(dataset.store, [f"annotations/{name}/{shard}.parquet" for shard in made])
        current = {
            shard
            for shard, provenance in zip(made, found, strict=True)
            if provenance is not None and provenance.get("fingerprint") == fingerprints[name]
        }
        stages[name] = Stage(
            name=name,
            part=part,
            fingerprint=fingerprints[name],
            todo=[shard for shard in dataset.shards if shard not in current],
            current=len(current),
            stale=len(made) - len(current),
            needs=[need for need in part.needs if need in recipe.specialists],
        )
    return Plan(stages)
