"""The stored tables of a data set as DuckDB views: all files, or those that a survey found usable."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from data_engine.dataset import Dataset
from data_engine.qa.survey import SCHEMAS, Shard

_SCALARS = {
    "string": "VARCHAR",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


def stored_views(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    """Views of all that lies in the data set's folders, whose files must have the schema's columns (runs: may)."""
    store = dataset.store
    for name, schema in SCHEMAS.items():
        if name == "images" and not store.local:
            # By number: a store may list late what was just written.
            files, pattern = [f"images/{shard}.parquet" for shard in dataset.shards], ""
        elif name in ("images", "runs"):
            files, pattern = [f"{name}/{f}" for f in store.files(name)], f"{name}/*.parquet"
        else:
            folders = [f"{name}/{folder}" for folder in store.folders(name)]
            files, pattern = [f"{d}/{f}" for d in folders for f in store.files(d)], f"{name}/*/*.parquet"
        # Records of runs are few, and those of older versions have fewer columns, which Arrow reads as null.
        if files and store.local and name != "runs":
            path = _literal(glob_of(store.root) + "/" + pattern)
            _view(
                connection,
                name,
                f"SELECT {_columns(schema)} FROM read_parquet({path}, union_by_name = false)",
            )
        else:
            _arrow_view(connection, dataset, name, schema, files)


def surveyed_views(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, tables: str, shards: Sequence[Shard]
) -> None:
    """The view of one stored table over some of its files; a column that a file lacks is null there."""
    schema, store = SCHEMAS[tables], dataset.store
    if not shards or not store.local:
        _arrow_view(connection, dataset, tables, schema, [shard.file for shard in shards])
        return
    alike: dict[tuple[tuple[str, str], ...], list[Shard]] = {}
    for shard in shards:
        alike.setdefault(tuple(sorted(shard.columns.items())), []).append(shard)
    parts = []
    for some in alike.values():
        paths = ", ".join(_literal(store.path(shard.file)) for shard in some)
        parts.append(
            f"SELECT {_present(schema, some[0])} FROM read_parquet([{paths}], union_by_name = false)"
        )
    _view(connection, tables, " UNION ALL ".join(parts))


def glob_of(path: str) -> str:
    """A path as a glob pattern that matches itself alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _view(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")


def _arrow_view(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    name: str,
    schema: pa.Schema,
    files: Sequence[str],
) -> None:
    """Over files that DuckDB cannot open itself, or over nothing."""
    paths = [dataset.store.path(file) for file in files]
    found = (
        pads.dataset(paths, schema=schema, filesystem=dataset.store.filesystem, format="parquet")
        if paths
        else schema.empty_table()
    )
    connection.register(f"_{name}", found)
    _view(connection, name, f"SELECT {_columns(schema)} FROM _{name}")


def _columns(schema: pa.Schema) -> str:
    # Embedded pictures are not for a terminal; everything else of the index is.
    return ", ".join(f'"{field.name}"' for field in schema if field.name != "bytes")


def _present(schema: pa.Schema, shard: Shard) -> str:
    """The schema's columns, as its types where the files have others, and null where they have none."""
    columns = []
    for field in schema:
        if field.name == "bytes":
            continue
        value = "NULL" if field.name in shard.missing_columns else f'"{field.name}"'
        columns.append(f'{value}::{_duckdb_type(field.type)} AS "{field.name}"')
    return ", ".join(columns)


def _duckdb_type(type_: pa.DataType) -> str:
    """What DuckDB reads a column of the schema as."""
    if pa.types.is_list(type_) or pa.types.is_fixed_size_list(type_):
        return f"{_duckdb_type(type_.value_type)}[]"
    if pa.types.is_struct(type_):
        return f"STRUCT({', '.join(f'{f.name} {_duckdb_type(f.type)}' for f in type_)})"
    return _SCALARS[str(type_)]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
