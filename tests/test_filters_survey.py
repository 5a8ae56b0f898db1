"""Filters that need what a specialist says: one shard may have none of it, the whole data set not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import SpecialistError
from data_engine.ingest.run import ingest
from data_engine.recipe import FilterPart, Recipe, Where
from data_engine.schema import ANNOTATIONS
from data_engine.shards import write_shard
from data_engine.where_sql import says, where_sql
from pipelines.filter import filter_dataset
from tests.toy_sources import write_pictures

ELEMENTS = (
    '{"objects": ["dog"], "attributes": [], "actions": [], "object_complexity": 1, "action_complexity": 0}'
)

NEEDING = [
    ("filters.elements:MostObjects", {}, "taken apart"),
    ("filters.elements:MinimumComplexity", {"objects": 2}, "taken apart"),
    ("filters.similarity:MinimumSimilarity", {"scorer": "clip", "minimum": 0.5}, "'clip' scored nothing"),
    ("filters.measure:Measure", {"name": "sharpness", "minimum": 0.5}, "no image has a measure 'sharpness'"),
]


def dataset(tmp_path: Path, judged: int) -> Dataset:
    """Texts of four images in two shards; of the first `judged` shards each was taken apart and scored, and each image measured."""
    write_pictures(tmp_path / "pictures", 4)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=2)
    made = Dataset.open(str(tmp_path / "ds"))
    for number, shard in enumerate(made.shards):
        rows = {name: AnnotationRows(name) for name in ("captions", "parts", "clip", "measures")}
        for batch in made.image_batches(shard, 100, ["image_id"]):
            for image_id in batch["image_id"].to_pylist():
                rows["captions"].add(image_id, [Annotation("text", "a dog", "brief")])
        for row in rows["captions"].table().to_pylist() if number < judged else []:
            hangs: dict[str, Any] = {"parent": row["annotation_id"]}
            rows["parts"].add(row["image_id"], [Annotation("text", ELEMENTS, "elements", **hangs)])
            rows["clip"].add(row["image_id"], [Annotation("text", granularity="brief", score=0.25, **hangs)])
            rows["measures"].add(row["image_id"], [Annotation("image", "0.25", "sharpness")])
        for name, gathered in rows.items():
            write_shard(made.store, f"annotations/{name}/{shard}.parquet", gathered.table(), ANNOTATIONS, {})
    return made


def recipe(use: str, args: dict[str, Any], **where: Any) -> Recipe:
    return Recipe(name="f", filters={"it": FilterPart(use=use, args=args, where=where)}).check()


@pytest.mark.parametrize(("use", "args", "told"), NEEDING)
def test_a_shard_of_which_nothing_was_said_stays_whole(
    tmp_path: Path, use: str, args: Any, told: str
) -> None:
    made = dataset(tmp_path, judged=1)
    summary = filter_dataset(made, recipe(use, args))
    assert summary.seen == 10 and summary.kept >= 2
    with pytest.raises(SpecialistError, match=told):
        filter_dataset(made, recipe(use, args, source="captions"))


@pytest.mark.parametrize(("use", "args", "told"), NEEDING)
def test_a_data_set_of_which_nothing_was_said_is_refused(
    tmp_path: Path, use: str, args: Any, told: str
) -> None:
    with pytest.raises(SpecialistError, match=told) as caught:
        filter_dataset(dataset(tmp_path, judged=0), recipe(use, args))
    assert caught.value.hint


def test_what_a_filter_may_see_is_asked_as_its_where_says(tmp_path: Path) -> None:
    made = dataset(tmp_path, judged=1)
    assert says(made, Where(kind=["text"], source=["clip", "it's"]), "score < 0.3 OR score > 0.9")
    assert not says(made, Where(source=["it's"]), "true") and not says(made, Where(), "score > 0.9")
    assert where_sql(Where()) == ""
