"""Fingerprints: what a shard's content depends on, as one digest. Same digest, same content: skip."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_engine.dataset import Dataset
from data_engine.entry_point import code_version
from data_engine.errors import DatasetError
from data_engine.fetched import fetch, is_on_a_store
from data_engine.recipe import Recipe
from data_engine.shards import read_provenances


def digest(value: Any) -> str:
    """A digest of any JSON value; the order of mapping keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files and their names."""
    if path.is_dir():
        return digest(
            {str(p.relative_to(path)): file_digest(p) for p in sorted(path.rglob("*")) if p.is_file()}
        )
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_content(value: Any, cache: dict[str, str]) -> Any:
    """Args with every path of this machine, and every URL of a store, replaced by what lies there: moving weights
    changes nothing."""
    if isinstance(value, Mapping):
        return {key: _by_content(item, cache) for key, item in value.items()}
    if isinstance(value, list):
        return [_by_content(item, cache) for item in value]
    if is_on_a_store(value):
        if value not in cache:
            cache[value] = file_digest(fetch(value))
        return {"content": cache[value]}
    if isinstance(value, str) and ("/" in value or "." in value) and len(value) < 4096:
        path = Path(value).expanduser()
        # os.path, for Path.exists raises where a text is too long to be a name.
        if os.path.exists(path):  # noqa: PTH110 - see above
            if value not in cache:
                cache[value] = file_digest(path)
            return {"content": cache[value]}
    return value


def specialist_fingerprints(recipe: Recipe, dataset: Dataset) -> dict[str, str]:
    """One fingerprint per specialist: its `use`, `args` and code, its weights' bytes, and its inputs'.

    How a specialist is run (actors, cpus, runtime_env and so on) changes nothing. `batch` does count: padding and
    floating-point order differ with it.
    """
    cache: dict[str, str] = {}
    found: dict[str, str] = {}
    for name in recipe.ordered():
        part = recipe.specialists[name]
        found[name] = digest(
            {
                "dataset": dataset.info.fingerprint,
                "code": code_version(part.use),
                "args": _by_content(part.args, cache),
                "batch": part.batch,
                "needs": {need: found.get(need, "ingest") for need in part.needs},
                **({} if part.kept is None else {"kept": verdicts_fingerprint(dataset, part.kept)}),
            }
        )
    return found


def arguments_digest(args: Mapping[str, Any]) -> str:
    """A digest of arguments, of files that they name by what lies there."""
    return digest(_by_content(args, {}))


def verdicts_fingerprint(dataset: Dataset, round_: int) -> str:
    """A digest of what a round's verdicts are made of. Raises DatasetError where shards have none."""
    return shards_fingerprint(dataset, f"verdicts/{round_}", f"verdicts of round {round_}")


def shards_fingerprint(dataset: Dataset, folder: str, what: str) -> str:
    """A digest of the fingerprints of a folder's shards. Raises DatasetError where one is missing."""
    there = set(dataset.store.files(folder))
    missing = [shard for shard in dataset.shards if f"{shard}.parquet" not in there]
    if missing:
        raise DatasetError(
            f"{dataset.url} has no {what} for {len(missing)} of its {len(dataset.shards)} shards",
            "run that step first: fde annotate, then fde filter",
        )
    found = read_provenances(dataset.store, [f"{folder}/{shard}.parquet" for shard in dataset.shards])
    return digest([None if one is None else one.get("fingerprint") for one in found])
