"""Shards that are to be made again although they are current: images failed in them that may pass now.

    retries/<id>.json    {"units": {specialist: [shard, ...]}, "verdicts": [shard, ...], ...}

Nothing is deleted to make a shard again: it is in place until the new one replaces it. A shard counts as made again
once its file is younger than the retry that asks for it, both by the store's own clock, so that a retry can be
interrupted anywhere, and any run of the recipe goes on with it. What a retried shard changes for others is asked for
in the same file, for it shows in no fingerprint: the shards of specialists that need it, and its verdicts.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from data_engine.dataset import NAME, Dataset
from data_engine.errors import FdeError
from data_engine.runner.plan import Plan
from data_engine.storage import Store


@dataclass(frozen=True)
class Retry:
    """One request. `asked` is its file's modification time in nanoseconds."""

    name: str
    asked: int
    units: Mapping[str, frozenset[str]]
    verdicts: frozenset[str]


def ask(dataset: Dataset, units: Mapping[str, Iterable[str]], reasons: Iterable[str]) -> None:
    """Ask for shards, by specialist, to be made again, and for the verdicts on all of them."""
    asked = {name: sorted(shards) for name, shards in units.items()}
    told = {
        "units": asked,
        "verdicts": sorted({shard for shards in asked.values() for shard in shards}),
        "reasons": sorted(reasons),
        "asked": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    dataset.store.write_bytes(
        f"retries/{uuid.uuid4().hex}.json", (json.dumps(told, indent=1) + "\n").encode()
    )


def add_to(plan: Plan, dataset: Dataset) -> int:
    """Put what was asked for and is not made again yet among the plan's work; returns how many shards that added.

    Requests that are met are removed.
    """
    added = 0
    for retry in _requests(dataset):
        left = False
        for name, shards in retry.units.items():
            waits = _older(dataset.store, f"annotations/{name}", shards, retry.asked)
            left = left or bool(waits)
            stage = plan.stages.get(name)
            if stage is not None:
                more = waits - set(stage.todo)
                stage.todo[:] = sorted({*stage.todo, *more})
                stage.current -= len(more)
                added += len(more)
        if not left and not _verdicts_left(dataset, retry):
            dataset.store.delete(retry.name)
    return added


def verdicts_to_renew(dataset: Dataset, round_: int) -> set[str]:
    """The shards whose annotations were asked for again since a round's verdicts on them were written."""
    return {
        shard
        for retry in _requests(dataset)
        for shard in _older(dataset.store, f"verdicts/{round_}", retry.verdicts, _renewed(dataset, retry))
    }


def _requests(dataset: Dataset) -> list[Retry]:
    made = []
    for name, stamp in dataset.store.stamps("retries", ".json").items():
        told: Any = None
        with suppress(FdeError, ValueError, RecursionError):
            told = json.loads(dataset.store.read(f"retries/{name}"))
        known = frozenset(dataset.shards)
        with suppress(TypeError, AttributeError, KeyError):
            units = {str(stage): known.intersection(shards) for stage, shards in told["units"].items()}
            units = {stage: shards for stage, shards in units.items() if NAME.fullmatch(stage)}
            verdicts = known.intersection(told["verdicts"])
            made.append(Retry(f"retries/{name}", stamp.mtime or 0, units, verdicts))
    return made


def _older(store: Store, folder: str, shards: Iterable[str], than: int) -> set[str]:
    """Those of the shards whose file is there and was last written at that moment or before."""
    stamps = store.stamps(folder)
    found = {shard: stamps.get(f"{shard}.parquet") for shard in shards}
    return {shard for shard, stamp in found.items() if stamp is not None and (stamp.mtime or 0) <= than}


def _renewed(dataset: Dataset, retry: Retry) -> int:
    """When the last shard of a request was written, or when it was asked for where none was."""
    latest = retry.asked
    for name, shards in retry.units.items():
        stamps = dataset.store.stamps(f"annotations/{name}")
        there = (stamps.get(f"{shard}.parquet") for shard in shards)
        latest = max([latest, *(stamp.mtime or 0 for stamp in there if stamp is not None)])
    return latest


def _verdicts_left(dataset: Dataset, retry: Retry) -> bool:
    renewed = _renewed(dataset, retry)
    rounds = dataset.store.folders("verdicts")
    return any(_older(dataset.store, f"verdicts/{number}", retry.verdicts, renewed) for number in rounds)
