"""Filter: a recipe's filters over every annotation, one verdict each, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine import __version__
from data_engine.dataset import Dataset
from data_engine.entry_point import add_import_folder, code_version, load
from data_engine.errors import DatasetError, RecipeError
from data_engine.fingerprint import digest
from data_engine.recipe import Recipe
from data_engine.refine_part import round_of
from data_engine.schema import ANNOTATIONS, VERDICTS
from data_engine.shards import read_provenance, read_table, write_shard
from data_engine.students import with_students
from data_engine.verdicts import Judge


@dataclass
class FilterSummary:
    """The funnel: statements in, dropped by each filter (in the recipe's order), kept.

    `images` are those of the shards, `bare` those of them of which something was said and nothing is kept.
    """

    seen: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    images: int = 0
    bare: int = 0
    shards_done: int = 0
    shards_skipped: int = 0

    def count(self, verdicts: pa.Table) -> None:
        """Add a shard's verdicts. Raises DatasetError unless each statement was either kept or dropped."""
        kept = pc.sum(verdicts["kept"]).as_py() or 0
        reasons = {
            row["values"]: row["counts"]
            for row in pc.value_counts(verdicts["dropped_by"].drop_null()).to_pylist()
        }
        if kept + sum(reasons.values()) != verdicts.num_rows:
            raise DatasetError(
                f"{verdicts.num_rows} statements, of which {kept} are kept and {sum(reasons.values())} dropped",
                "remove the data set's folder verdicts and filter again",
            )
        self.seen += verdicts.num_rows
        self.kept += kept
        self.dropped.update(reasons)
        told = pc.count_distinct(verdicts["image_id"]).as_py()
        self.bare += told - pc.count_distinct(verdicts["image_id"].filter(verdicts["kept"])).as_py()


def filter_dataset(
    dataset: Dataset,
    recipe: Recipe,
    *,
    round_: int = 0,
    sample: float | None = None,
    sources: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FilterSummary:
    """Write the verdicts of one round. Shards whose verdicts are current are skipped, but counted.

    Where only later filters have changed, what the earlier ones dropped is taken from the verdicts there
    are. With `sample`, a share of the shards in 0..1, evenly spread and at least one, nothing is written:
    the summary says what would come out of those.

    `sources` are those that are judged and seen: by default all but those that rounds of refinement made.

    `progress` is called with shards done and shards in all. Raises RecipeError for a recipe without filters
    or an impossible sample.
    """
    if not recipe.filters:
        raise RecipeError(f"the recipe {recipe.name!r} has no filters", "add some under `filters:`")
    if sample is not None and not 0 < sample <= 1:
        raise RecipeError(f"a sample of {sample} of the shards", "give a share above 0 and up to 1")
    run = _Run(dataset, with_students(recipe, dataset, lambda _: None), round_, sources)
    shards = dataset.shards if sample is None else _spread(dataset.shards, sample)
    summary = FilterSummary()
    for number, shard in enumerate(shards):
        verdicts = run.current(shard)
        if verdicts is not None:
            summary.shards_skipped += 1
        else:
            verdicts = run.judge(shard, write=sample is None)
            summary.shards_done += 1
        summary.count(verdicts)
        summary.images += run.images(shard, ["image_id"]).num_rows
        if progress is not None:
            progress(number + 1, len(shards))
    return summary


def _spread(shards: Sequence[str], share: float) -> list[str]:
    count = max(1, round(len(shards) * share))
    return [shards[(2 * i + 1) * len(shards) // (2 * count)] for i in range(count)]


class _Run:
    """The filters of one call, and what a shard's verdicts depend on."""

    def __init__(
        self, dataset: Dataset, recipe: Recipe, round_: int, sources: Collection[str] | None
    ) -> None:
        add_import_folder(recipe.folder)
        made: dict[str, Any] = {
            name: load(part.use, dict(part.args), f"filters.{name}") for name, part in recipe.filters.items()
        }
        self.dataset, self.round = dataset, round_
        self.decide = Judge(recipe.filters, made)
        self.rules = [
            digest(
                [name, part.model_dump(), code_version(part.use), _surveyed(made[name], dataset, part.where)]
            )
            for name, part in recipe.filters.items()
        ]
        self.sources = {
            name: set(dataset.store.files(f"annotations/{name}"))
            for name in dataset.sources()
            if (not round_of(name) if sources is None else name in sources)
        }

    def current(self, shard: str) -> pa.Table | None:
        """The shard's verdicts, if they are by these filters on these annotations."""
        if self._written(shard).get("fingerprint") != self._fingerprint(shard):
            return None
        return read_table(self.dataset.store, self._target(shard))

    def judge(self, shard: str, write: bool) -> pa.Table:
        tables = [self.dataset.annotations(name, shard) for name in self._names(shard)]
        said = pa.concat_tables(tables).cast(ANNOTATIONS) if tables else ANNOTATIONS.empty_table()
        columns = self.decide.image_columns
        images = self.images(shard, ["image_id", *columns]) if columns else None
        before, unchanged = self._before(shard)
        if before is not None and before["annotation_id"] != said["annotation_id"]:
            before, unchanged = None, 0
        verdicts = self.decide(said, self.round, images, before, unchanged)
        if write:
            provenance = {
                "stage": "filter",
                "fingerprint": self._fingerprint(shard),
                "inputs": self._inputs(shard),
                "rules": self.rules,
                "rows": verdicts.num_rows,
                "version": __version__,
            }
            write_shard(self.dataset.store, self._target(shard), verdicts, VERDICTS, provenance)
        return verdicts

    def images(self, shard: str, columns: list[str]) -> pa.Table:
        return read_table(self.dataset.store, f"images/{shard}.parquet", columns)

    def _before(self, shard: str) -> tuple[pa.Table | None, int]:
        """Earlier verdicts on the same annotations, and by how many of these filters they begin."""
        provenance = self._written(shard)
        if provenance.get("inputs") != self._inputs(shard):
            return None, 0
        earlier = provenance.get("rules", [])
        pairs = zip(earlier, self.rules, strict=False)
        unchanged = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(earlier), len(self.rules)))
        return (read_table(self.dataset.store, self._target(shard)), unchanged) if unchanged else (None, 0)

    def _written(self, shard: str) -> dict[str, Any]:
        """What the shard's verdicts were made from; empty where there are none."""
        target = self._target(shard)
        return (
            (read_provenance(self.dataset.store, target) or {}) if self.dataset.store.exists(target) else {}
        )

    def _names(self, shard: str) -> list[str]:
        return [source for source, there in self.sources.items() if f"{shard}.parquet" in there]

    def _inputs(self, shard: str) -> str:
        found = {}
        for name in self._names(shard):
            provenance = read_provenance(self.dataset.store, f"annotations/{name}/{shard}.parquet")
            found[name] = None if provenance is None else provenance.get("fingerprint")
        return digest(found)

    def _fingerprint(self, shard: str) -> str:
        return digest({"rules": self.rules, "inputs": self._inputs(shard)})

    def _target(self, shard: str) -> str:
        return f"verdicts/{self.round}/{shard}.parquet"


def _surveyed(made: Any, dataset: Dataset, where: Any) -> str:
    """What a filter that looks at the whole data set found there, as it says itself."""
    survey = getattr(made, "survey", None)
    return "" if survey is None else str(survey(dataset, where))
