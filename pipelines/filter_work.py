"""One unit of filtering: what was said of a shard's images, through a recipe's filters, into one verdicts shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine import __version__
from data_engine.dataset import Dataset
from data_engine.entry_point import add_import_folder, load
from data_engine.errors import DatasetError, SpecialistError
from data_engine.fingerprint import digest
from data_engine.recipe import FilterPart
from data_engine.refine_part import judged_in
from data_engine.runner.work import Beat, Careful, Done
from data_engine.schema import ANNOTATIONS, VERDICTS
from data_engine.shards import read_provenance, read_table, write_shard
from data_engine.verdicts import Judge


def build_filters(filters: Mapping[str, FilterPart], folder: str) -> dict[str, Any]:
    """A recipe's filters, built. `folder` is where the recipe lies. Raises what says why one cannot be had."""
    add_import_folder(folder)
    return {name: load(part.use, dict(part.args), f"filters.{name}") for name, part in filters.items()}


class ShardVerdicts:
    """What a shard's verdicts are made from, and which are there. A round judges sources of its own:
    round 0 all but those that refinement made, a later one what it merged.

    `rules` has one digest for each filter: its settings, its code, and what it found in the whole data set.
    """

    def __init__(self, dataset: Dataset, round_: int, rules: Sequence[str]) -> None:
        self.dataset, self.round, self.rules = dataset, round_, list(rules)
        self._shards = {
            name: set(dataset.store.files(f"annotations/{name}"))
            for name in dataset.sources()
            if judged_in(name, round_)
        }

    def target(self, shard: str) -> str:
        return f"verdicts/{self.round}/{shard}.parquet"

    def sources(self, shard: str) -> list[str]:
        return [source for source, there in self._shards.items() if f"{shard}.parquet" in there]

    def inputs(self, shard: str) -> str:
        """A digest of the annotations that there are."""
        found = {}
        for name in self.sources(shard):
            provenance = read_provenance(self.dataset.store, f"annotations/{name}/{shard}.parquet")
            found[name] = None if provenance is None else provenance.get("fingerprint")
        return digest(found)

    def fingerprint(self, shard: str) -> str:
        return digest({"rules": self.rules, "inputs": self.inputs(shard)})

    def written(self, shard: str) -> dict[str, Any]:
        """What the shard's verdicts were made from; empty where there are none."""
        if not self.dataset.store.exists(self.target(shard)):
            return {}
        return read_provenance(self.dataset.store, self.target(shard)) or {}

    def current(self, shard: str) -> dict[str, Any] | None:
        """The counts of the shard's verdicts, if they are by these filters on these annotations."""
        written = self.written(shard)
        if written.get("fingerprint") != self.fingerprint(shard):
            return None
        return written.get("counts")

    def before(self, shard: str) -> tuple[pa.Table | None, int]:
        """Earlier verdicts on the same annotations, and by how many of these filters they begin."""
        written = self.written(shard)
        if written.get("inputs") != self.inputs(shard):
            return None, 0
        earlier = written.get("rules", [])
        pairs = zip(earlier, self.rules, strict=False)
        unchanged = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(earlier), len(self.rules)))
        return (read_table(self.dataset.store, self.target(shard)), unchanged) if unchanged else (None, 0)


class FilterWorker:
    """Holds a recipe's filters and judges shards with them, as `data_engine.runner` runs units.

    `found` are the attributes of the filters that have looked at the whole data set, by their names: that look
    is taken once, and not by every worker. Without `write` nothing is written.
    """

    def __init__(
        self,
        dataset_url: str,
        filters: Mapping[str, FilterPart],
        folder: str,
        round_: int,
        rules: Sequence[str],
        found: Mapping[str, Mapping[str, Any]],
        write: bool,
    ) -> None:
        self.dataset_url = dataset_url
        self.filters = filters
        self.folder = folder
        self.round = round_
        self.rules = rules
        self.found = found
        self.write = write

    def load(self) -> None:
        """Open the data set and build the filters."""
        made = build_filters(self.filters, self.folder)
        for name, attributes in self.found.items():
            vars(made[name]).update(attributes)
        self.judge = Judge(self.filters, made)
        self.verdicts = ShardVerdicts(Dataset.open(self.dataset_url), self.round, self.rules)

    def run(self, shard: str, careful: Careful | None = None) -> Iterator[Beat | Done]:
        """Judge one shard; the last thing yielded is Done with its counts, and then its file is in place.

        A shard is judged in one go: `careful` makes no difference. Raises DatasetError for annotations that
        cannot be read, SpecialistError for a filter that fails.
        """
        dataset = self.verdicts.dataset
        said = self._said(shard)
        columns = self.judge.image_columns
        images = read_table(dataset.store, f"images/{shard}.parquet", ["image_id", *columns])
        before, unchanged = self.verdicts.before(shard)
        if before is not None and before["annotation_id"] != said["annotation_id"]:
            before, unchanged = None, 0
        try:
            made = self.judge(said, self.round, images, before, unchanged)
        except SpecialistError as error:
            raise SpecialistError(f"shard {shard}: {error.message}", error.hint) from error
        counts = counted(made, said.num_rows, images.num_rows)
        if self.write:
            provenance = {
                "stage": "filter",
                "fingerprint": self.verdicts.fingerprint(shard),
                "inputs": self.verdicts.inputs(shard),
                "rules": self.verdicts.rules,
                "rows": made.num_rows,
                "counts": counts,
                "version": __version__,
            }
            write_shard(dataset.store, self.verdicts.target(shard), made, VERDICTS, provenance)
        yield Beat(images.num_rows, 0, images.num_rows)
        yield Done(images.num_rows, 0, made.num_rows, counts)

    def _said(self, shard: str) -> pa.Table:
        """All that was said of a shard, in the columns that the filters look at."""
        schema = pa.schema([ANNOTATIONS.field(name) for name in self.judge.columns])
        tables = [schema.empty_table()]
        for name in self.verdicts.sources(shard):
            table = self.verdicts.dataset.annotations(name, shard, schema.names)
            try:
                tables.append(table.cast(schema))
            except (ValueError, pa.ArrowException) as error:
                raise DatasetError(
                    f"annotations/{name}/{shard}.parquet is no table of annotations: "
                    f"{' '.join(str(error).split())[:200]}",
                    "its columns stand in data_engine/schema.py; delete the file and run its specialist again",
                ) from error
        return pa.concat_tables(tables)


def counted(verdicts: pa.Table, said: int, images: int) -> dict[str, Any]:
    """A shard's funnel: `seen`, `kept`, `dropped` by reason, its `images`, and the `bare` ones of them.

    Raises DatasetError unless each statement was either kept or dropped.
    """
    kept = pc.sum(verdicts["kept"]).as_py() or 0
    reasons = {
        row["values"]: row["counts"]
        for row in pc.value_counts(verdicts["dropped_by"].drop_null()).to_pylist()
    }
    if kept + sum(reasons.values()) != said:
        raise DatasetError(
            f"{said} statements, of which {kept} are kept and {sum(reasons.values())} dropped",
            "remove the data set's folder verdicts and filter again",
        )
    told = pc.count_distinct(verdicts["image_id"]).as_py()
    bare = told - pc.count_distinct(verdicts["image_id"].filter(verdicts["kept"])).as_py()
    return {"seen": said, "kept": kept, "dropped": reasons, "images": images, "bare": bare}
