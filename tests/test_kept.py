"""A specialist that is given only what a round of filters kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError
from data_engine.ingest.run import ingest
from data_engine.recipe import FilterPart, Recipe, SpecialistPart, Where
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from tests.ingested import rows
from tests.toy_sources import write_pictures

TOYS = "tests.toy_specialists"
NUMBERS = {"numbers": SpecialistPart(use=f"{TOYS}:Numbers")}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 12)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "dataset"), shard_size=5)
    made = Dataset.open(str(tmp_path / "dataset"))
    annotate(made, Recipe(name="numbers", specialists=NUMBERS), runner="inline")
    return made


def judged(dataset: Dataset, text: str) -> None:
    """Drop texts that are longer than this one."""
    args = {"minimum_words": 0, "minimum_characters": 0, "maximum_characters": len(text)}
    rule = FilterPart(use="filters.text_length:TextLength", args=args, where=Where(kind=["text"]))
    filter_dataset(dataset, Recipe(name="short", filters={"long": rule}))


def echoed(dataset: Dataset) -> list[str]:
    echo = SpecialistPart(use=f"{TOYS}:Echo", needs=["numbers"], kept=0)
    annotate(dataset, Recipe(name="echo", specialists={**NUMBERS, "echo": echo}), runner="inline")
    return sorted(row["text"] for row in rows(dataset.url, "annotations/echo"))


def test_what_was_dropped_is_not_given_and_other_verdicts_make_it_anew(dataset):
    judged(dataset, "number 1")
    assert echoed(dataset) == [f"echo number {n}" for n in range(10)]
    judged(dataset, "number 11")
    assert len(echoed(dataset)) == 12


def test_without_verdicts_it_cannot_run(dataset):
    with pytest.raises(DatasetError, match="no verdicts of round 0 for 3 of its 3 shards") as caught:
        echoed(dataset)
    assert "fde filter" in caught.value.hint
