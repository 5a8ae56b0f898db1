"""Filter: a recipe's filters over every annotation, one verdict each, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from data_engine import __version__
from data_engine.dataset import Dataset
from data_engine.entry_point import add_import_folder, code_version, load
from data_engine.errors import RecipeError
from data_engine.fingerprint import digest
from data_engine.recipe import Recipe
from data_engine.schema import ANNOTATIONS, VERDICTS
from data_engine.shards import read_provenance, read_table, write_shard
from data_engine.students import with_students
from data_engine.verdicts import Judge


@dataclass
class FilterSummary:
    """The funnel: statements in, dropped by each filter (in the recipe's order), kept."""

    seen: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    shards_done: int = 0
    shards_skipped: int = 0


def filter_dataset(
    dataset: Dataset, recipe: Recipe, *, round_: int = 0, progress: Callable[[int, int], None] | None = None
) -> FilterSummary:
    """Write the verdicts of one round. Shards whose verdicts are current are skipped, but counted.

    `progress` is called with shards done and shards in all. Raises RecipeError for a recipe without filters.
    """
    if not recipe.filters:
        raise RecipeError(f"the recipe {recipe.name!r} has no filters", "add some under `filters:`")
    recipe = with_students(recipe, dataset, lambda _: None)
    add_import_folder(recipe.folder)
    judge = Judge(
        recipe.filters,
        {name: load(part.use, dict(part.args), f"filters.{name}") for name, part in recipe.filters.items()},
    )
    rules = [[name, part.model_dump(), code_version(part.use)] for name, part in recipe.filters.items()]
    sources = {source: set(dataset.store.files(f"annotations/{source}")) for source in dataset.sources()}
    summary = FilterSummary()
    for number, shard in enumerate(dataset.shards):
        names = [source for source, there in sources.items() if f"{shard}.parquet" in there]
        inputs = {name: _fingerprint(dataset, f"annotations/{name}/{shard}.parquet") for name in names}
        fingerprint = digest({"rules": rules, "inputs": inputs})
        target = f"verdicts/{round_}/{shard}.parquet"
        if dataset.store.exists(target) and _fingerprint(dataset, target) == fingerprint:
            summary.shards_skipped += 1
        else:
            tables = [dataset.annotations(name, shard) for name in names]
            said = pa.concat_tables(tables).cast(ANNOTATIONS) if tables else ANNOTATIONS.empty_table()
            verdicts = judge(said, round_)
            provenance = {
                "stage": "filter",
                "fingerprint": fingerprint,
                "rows": verdicts.num_rows,
                "version": __version__,
            }
            write_shard(dataset.store, target, verdicts, VERDICTS, provenance)
            summary.shards_done += 1
        _count(dataset, target, summary)
        if progress is not None:
            progress(number + 1, len(dataset.shards))
    return summary


def _fingerprint(dataset: Dataset, name: str) -> str | None:
    found = read_provenance(dataset.store, name)
    return None if found is None else found.get("fingerprint")


def _count(dataset: Dataset, name: str, summary: FilterSummary) -> None:
    table = read_table(dataset.store, name, ["kept", "dropped_by"])
    summary.seen += table.num_rows
    summary.kept += pc.sum(table["kept"]).as_py() or 0
    for row in pc.value_counts(table["dropped_by"].drop_null()).to_pylist():
        summary.dropped[row["values"]] += row["counts"]
