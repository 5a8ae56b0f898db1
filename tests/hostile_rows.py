"""A data set whose image index was written by somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.schema import IMAGES
from data_engine.shards import read_table, write_shard
from tests.picture_files import png, put


def honest(folder: Path, count: int = 3, embed: bool = False) -> Dataset:
    """A data set of so many pictures, `folder/pictures/0.png` and on."""
    put(folder / "pictures", {f"{i}.png": png(i) for i in range(count)})
    ingest(str(folder / "pictures"), str(folder / "ds"), embed=embed)
    return Dataset.open(str(folder / "ds"))


def with_rows(dataset: Dataset, *changes: dict[str, Any]) -> Dataset:
    """The same with columns of its first rows changed."""
    rows = read_table(dataset.store, "images/00000.parquet").to_pylist()
    for row, change in zip(rows, changes, strict=False):
        row.update(change)
    table = pa.Table.from_pylist(rows, schema=IMAGES)
    write_shard(dataset.store, "images/00000.parquet", table, IMAGES, {"stage": "ingest"})
    return dataset
