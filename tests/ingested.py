"""What a data set holds, as plain rows that can be compared."""

from __future__ import annotations

from typing import Any

from data_engine.dataset import Dataset
from data_engine.shards import read_table
from data_engine.storage import Store


def rows(url: str, folder: str) -> list[dict[str, Any]]:
    """All rows of one folder of shards, in order."""
    store = Store(str(url))
    return [row for name in store.files(folder) for row in read_table(store, f"{folder}/{name}").to_pylist()]


def images(url: str) -> list[dict[str, Any]]:
    return rows(url, "images")


def by_key(url: str) -> dict[str, dict[str, Any]]:
    return {key: row for row in images(url) for key in row["keys"]}


def failures(url: str) -> list[dict[str, Any]]:
    return rows(url, "failures/ingest")


def labels(url: str, source: str = "human") -> list[dict[str, Any]]:
    return rows(url, f"annotations/{source}")


def everything(url: str) -> dict[str, Any]:
    """Shard by shard, row by row, with provenance."""
    dataset = Dataset.open(str(url))
    found: dict[str, Any] = {"info": dataset.info}
    for folder in ["images", "failures/ingest", *(f"annotations/{s}" for s in dataset.sources())]:
        for name in dataset.store.files(folder):
            table = read_table(dataset.store, f"{folder}/{name}")
            found[f"{folder}/{name}"] = (table.schema.metadata, table.to_pylist())
    return found
