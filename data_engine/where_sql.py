"""Which rows a filter looks at, for those that ask the whole data set by SQL before the first shard."""

from __future__ import annotations

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.query import connect, run, sql
from data_engine.recipe import Where


def where_sql(where: Where) -> str:
    """A recipe's `where` as conditions on `annotations`, to stand after others: ` AND kind IN ('text')`; may be empty."""
    wanted = (("kind", where.kind), ("granularity", where.granularity), ("source", where.source))
    return "".join(f" AND {column} IN ({_quoted(values)})" for column, values in wanted if values)


_MEMORY = "512MB"


def surveyed(dataset: Dataset, query: str) -> pa.Table:
    """All rows of a query over the whole data set. Of what it sorts and groups by, more than 512 MB goes to disk."""
    with connect(dataset, _MEMORY) as connection:
        return run(connection, query).read_all()


def says(dataset: Dataset, where: Where, condition: str) -> bool:
    """Whether any annotation of the data set that `where` lets through meets a condition, in SQL."""
    asked = f"SELECT 1 FROM annotations WHERE ({condition}){where_sql(where)} LIMIT 1"  # noqa: S608 - quoted
    return bool(sql(dataset, asked).num_rows)


def quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _quoted(values: list[str]) -> str:
    return ", ".join(quoted(value) for value in values)
