"""What a training learns from: the kept rows of a data set's shards, and the statements of one image again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.dataset import Dataset
from data_engine.entry_point import did_you_mean
from data_engine.errors import DatasetError, RecipeError
from data_engine.schema import ANNOTATIONS
from data_engine.shards import read_table
from data_engine.trainer import Learn
from specialists.florence2.prompts import TASKS

COLUMNS = (
    "annotation_id", "image_id", "kind", "granularity", "text", "parent_id", "span", "box", "quad", "mask",
)  # fmt: skip
"""All that `sequences` looks at."""

LOOKED_AT = ("annotation_id", "image_id", "kind", "granularity", "text", "box", "mask")
"""Enough to tell what there is."""


class Kept:
    """The statements of some sources, shard by shard, without what a round of filters dropped.

    Raises RecipeError for a source that the data set does not have.
    """

    def __init__(self, dataset: Dataset, learn: Learn) -> None:
        self.dataset, self.learn = dataset, learn
        known = dataset.sources()
        for source in learn.sources:
            if source not in known:
                raise RecipeError(
                    f"{dataset.url} has no statements of {source!r}{did_you_mean(source, known)}",
                    "run fde annotate first, or name another source to learn from",
                )

    @cached_property
    def _files(self) -> Mapping[str, frozenset[str]]:
        """The shards that each source of the data set has written."""
        store = self.dataset.store
        return {name: frozenset(store.files(f"annotations/{name}")) for name in self.dataset.sources()}

    @cached_property
    def _judged(self) -> frozenset[str]:
        return frozenset(self.dataset.store.files(f"verdicts/{self.learn.verdicts}"))

    def names(self, shard: str) -> list[str]:
        """The files that this shard's rows come from, verdicts included. Raises DatasetError without these."""
        file = f"{shard}.parquet"
        found = [f"annotations/{name}/{file}" for name in self.learn.sources if file in self._files[name]]
        if found and self.learn.verdicts is not None:
            if file not in self._judged:
                raise DatasetError(
                    f"shard {shard} of {self.dataset.url} has no verdicts of round {self.learn.verdicts}",
                    "run fde filter first",
                )
            found.append(f"verdicts/{self.learn.verdicts}/{file}")
        return found

    def table(self, shard: str, columns: Iterable[str] = COLUMNS) -> pa.Table:
        """The kept rows of one shard; none where no source has written it."""
        store, columns = self.dataset.store, list(columns)
        names = self.names(shard)
        verdicts = names.pop() if names and self.learn.verdicts is not None else None
        if not names:
            return pa.table({name: pa.array([], ANNOTATIONS.field(name).type) for name in columns})
        rows = pa.concat_tables(read_table(store, name, columns) for name in names)
        if verdicts is None:
            return rows
        judged = read_table(store, verdicts, ["annotation_id", "kept"])
        dropped = judged["annotation_id"].filter(pc.invert(judged["kept"]))
        return rows.filter(pc.invert(pc.is_in(rows["annotation_id"], dropped.combine_chunks())))

    def parents(self, shard: str, rows: pa.Table) -> dict[str, Annotation]:
        """What `rows` hang on that is not among them, by its id: whatever source said it, kept or not.

        A mask may be learnt although its region is another source's, and teaches no more than its outline.
        """
        asked = rows["parent_id"].drop_null().unique()
        lacking = asked.filter(pc.invert(pc.is_in(asked, rows["annotation_id"].combine_chunks())))
        found: dict[str, Annotation] = {}
        for source, files in self._files.items():
            if len(found) == len(lacking):
                break
            if f"{shard}.parquet" in files:
                said = self.dataset.annotations(source, shard, list(COLUMNS))
                for row in said.filter(pc.is_in(said["annotation_id"], lacking)).to_pylist():
                    found[row["annotation_id"]] = _annotation(row)
        return found


def teaches(rows: pa.Table, tasks: Collection[str]) -> NDArray[np.bool_]:
    """Of each row whether some task can be learnt from it: from it alone, or it with what it hangs on."""
    kind, granularity, text = rows["kind"], rows["granularity"], rows["text"]
    masked = _true(rows["mask"].is_valid())
    boxed = _true(rows["box"].is_valid()) & ~masked
    said = _true(pc.greater(pc.utf8_length(pc.coalesce(text, "")), 0))
    of: dict[str, NDArray[np.bool_]] = {k: _true(pc.equal(kind, k)) for k in ("text", "region", "phrase")}
    found = np.zeros(len(rows), bool)
    for name in tasks:
        task = TASKS[name]
        if name in ("REFERRING_EXPRESSION_SEGMENTATION", "REGION_TO_SEGMENTATION"):
            found |= of[task.kind] & masked
        elif name == "CAPTION_TO_PHRASE_GROUNDING":
            found |= of["phrase"] & boxed & said
        elif name == "REGION_PROPOSAL":
            found |= of["region"] & boxed
        else:
            same = of[task.kind] & _true(pc.equal(granularity, task.granularity))
            found |= same & said & (boxed if task.kind == "region" else True)
    return found


def _true(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy(), dtype=np.bool_)


def statements(rows: Iterable[Mapping[str, Any]], parents: Mapping[str, Annotation]) -> list[Annotation]:
    """Rows of one image as annotations that hang on each other as the rows do, or on one of `parents`."""
    rows = list(rows)
    made = {row["annotation_id"]: _annotation(row) for row in rows}
    for row in rows:
        parent = row["parent_id"]
        made[row["annotation_id"]].parent = made.get(parent) or parents.get(parent)
    return list(made.values())


def _annotation(row: Mapping[str, Any]) -> Annotation:
    span = row["span"]
    return Annotation(
        row["kind"],
        row["text"],
        row["granularity"],
        span=None if span is None else (span[0], span[1]),
        box=row["box"],
        quad=row["quad"],
        mask=row["mask"],
    )
