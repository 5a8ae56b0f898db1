"""What rounds of refinement leave beside their labels: facts of each step, and one table of what came of it.

    rounds/<round>/student.json      what the student was trained from
    rounds/<round>/merge.json        the arguments that calibration chose
    rounds/<round>/quality.parquet   the round's measures: the view `rounds`
    rounds/<round>/round.json        accepted or not, and why; written last: it is the commit of a round

They lie beside `models/<round>` and not in it: whatever lies there belongs to the student's fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.schema import ROUNDS
from data_engine.shards import write_shard


@dataclass(frozen=True)
class Measured:
    """One row of the view `rounds`: a measure of a set of labels, or of a student, on held-out images.

    `value` with its interval `low` to `high` (NaN where it has none), over `images` that say anything of it.
    `change`, with its own interval, is against the labels or student that the round began with.
    """

    subject: str
    measure: str
    value: float
    low: float
    high: float
    images: int
    decides: bool = False
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a round: whether its labels are used, in words why, and whether another may gain more."""

    accepted: bool
    reason: str
    gained: bool


def read_facts(dataset: Dataset, round_: int, name: str) -> dict[str, Any]:
    """A step's facts; empty where there are none, or where they are no JSON."""
    path = f"rounds/{round_}/{name}.json"
    if not dataset.store.exists(path):
        return {}
    try:
        found = json.loads(dataset.store.read(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write_facts(dataset: Dataset, round_: int, name: str, facts: Mapping[str, Any]) -> None:
    dataset.store.write_bytes(f"rounds/{round_}/{name}.json", (json.dumps(facts, indent=2) + "\n").encode())


def write_round(
    dataset: Dataset, round_: int, measured: Sequence[Measured], verdict: Verdict, fingerprint: str
) -> None:
    """Commit a round: its table first, then `round.json`."""
    rows = [
        {"round": round_, "accepted": verdict.accepted, "reason": verdict.reason}
        | {name: None if value != value else value for name, value in asdict(one).items()}  # NaN: nothing
        for one in measured
    ]
    table = pa.Table.from_pylist(rows, schema=ROUNDS)
    write_shard(
        dataset.store, f"rounds/{round_}/quality.parquet", table, ROUNDS, {"fingerprint": fingerprint}
    )
    write_facts(dataset, round_, "round", {"fingerprint": fingerprint, **asdict(verdict)})


def retire(dataset: Dataset, round_: int) -> None:
    """Take back a round and those after it, since they build on it; what they said stays until it is redone."""
    for name in dataset.store.folders("rounds"):
        if name.isdecimal() and int(name) >= round_:
            for file in ("round.json", "quality.parquet"):
                dataset.store.delete(f"rounds/{name}/{file}")


def last_accepted(dataset: Dataset) -> int:
    """The round whose labels are used: the last of those that are accepted one after another, 0 for none."""
    number = 0
    while read_facts(dataset, number + 1, "round").get("accepted"):
        number += 1
    return number
