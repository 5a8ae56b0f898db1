"""Do two data sets hold the same rows? Asked of a disturbed run and one that nothing disturbed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TABLES = ("annotations", "failures")


def shards(dataset: Path, tables: Sequence[str] = TABLES) -> dict[str, Path]:
    """Every shard that stands, by its name in the data set."""
    return {
        str(path.relative_to(dataset)): path
        for table in tables
        for path in sorted((dataset / table).rglob("*.parquet"))
    }


def differences(
    calm: Path, other: Path, *, finished: bool = True, tables: Sequence[str] = TABLES
) -> list[str]:
    """What `other` holds that `calm` does not, shard by shard and row by row, in their order; empty for none.

    Unless `finished`, shards may be missing: what stands must be right. A shard of `failures` may then be
    there before its shard of `annotations`, never after it.
    """
    wanted, found = shards(calm, tables), shards(other, tables)
    said = []
    for name, path in found.items():
        if name not in wanted:
            said.append(f"{name} should not be there")
        elif not _rows(path).equals(_rows(wanted[name])):
            said.append(f"{name} differs")
    for name in wanted:
        commit = name.replace("failures/", "annotations/", 1)
        if name not in found and (finished or (commit != name and commit in found)):
            said.append(f"{name} is missing")
    return said


def twins(dataset: Path) -> int:
    """Rows of annotations whose id another row has too."""
    columns = [
        pq.read_table(path, columns=["annotation_id"])["annotation_id"]
        for path in shards(dataset, ["annotations"]).values()
    ]
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
    return len(ids) - pc.count_distinct(ids).as_py()


def _rows(path: Path) -> pa.Table:
    return pq.read_table(path).replace_schema_metadata(None)
