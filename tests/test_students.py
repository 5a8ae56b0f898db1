"""Recipes whose models lie in the data set: they wait until the model is there, and hold nothing up."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.ingest.run import ingest
from data_engine.recipe import FilterPart, Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.students import with_students
from pipelines.annotate import annotate
from tests.toy_sources import write_pictures

TOY = "tests.toy_specialists:"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 5)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    return Dataset.open(str(tmp_path / "ds"))


def recipe(word: str = "dataset:models/detailed") -> Recipe:
    """`student` says the path it was given; `echo` repeats both, `parrot` the student alone."""
    parts = {
        "student": SpecialistPart(use=TOY + "Numbers", args={"word": word}, batch=4),
        "numbers": SpecialistPart(use=TOY + "Numbers", batch=4),
        "echo": SpecialistPart(use=TOY + "Echo", needs=["numbers", "student"], batch=4),
        "parrot": SpecialistPart(use=TOY + "Echo", needs=["student"], batch=4),
    }
    return Recipe(name="toy", specialists=parts).check()


def run(dataset: Dataset) -> list[str]:
    reporter = Reporter(terminal=False)
    notes: list[str] = []
    reporter.note = notes.append  # type: ignore[method-assign]
    annotate(dataset, recipe(), runner="inline", reporter=reporter)
    return notes


def rows(dataset: Dataset, source: str) -> list[str]:
    return dataset.annotations(source, "00000")["text"].to_pylist()


def test_a_specialist_waits_for_its_student_and_the_rest_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    notes = run(dataset)
    assert dataset.sources() == ["echo", "numbers"]
    assert [note.split(" ")[0] for note in notes] == ["student", "parrot"]
    assert all("models/detailed is not in the data set" in note for note in notes)
    assert len(rows(dataset, "echo")) == 5

    model = tmp_path / "ds" / "models" / "detailed"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"1")
    before = (tmp_path / "ds" / "annotations" / "numbers" / "00000.parquet").stat()
    notes = run(dataset)
    assert dataset.sources() == ["echo", "numbers", "parrot", "student"]
    assert rows(dataset, "student")[0].startswith(str(model))
    assert len(rows(dataset, "echo")) == 10  # made again, for it has more to answer to
    assert not any("waits" in note for note in notes)
    after = (tmp_path / "ds" / "annotations" / "numbers" / "00000.parquet").stat()
    assert before.st_mtime_ns == after.st_mtime_ns

    # Another student is other weights: what it said is made again, and what hangs on it.
    (model / "weights").write_bytes(b"2")
    assert [note.split(":")[0] for note in run(dataset)] == ["student", "echo", "parrot"]


@pytest.mark.parametrize("place", ["dataset:", "dataset:/etc", "dataset:models/../../x"])
def test_a_folder_outside_of_the_data_set_is_refused(dataset: Dataset, place: str) -> None:
    with pytest.raises(RecipeError, match="no folder of a data set"):
        with_students(recipe(place), dataset, print)


def test_a_filter_cannot_wait(dataset: Dataset) -> None:
    part = FilterPart(use="filters.score:MinimumScore", args={"minimum": {"of": ["dataset:models/x"]}})
    with pytest.raises(RecipeError, match="models/x is not in the data set"):
        with_students(Recipe(name="toy", filters={"student": part}), dataset, print)


def test_a_model_in_a_remote_data_set_is_named_by_its_url(dataset: Dataset) -> None:
    from data_engine.storage import Store

    remote = Dataset(Store("memory://students"), dataset.info)
    told: list[str] = []
    assert "student" not in with_students(recipe("dataset:models/one"), remote, told.append).specialists
    assert "models/one is not in the data set yet" in told[0]
    remote.store.write_bytes("models/one/weights.txt", b"a line")
    made = with_students(recipe("dataset:models/one"), remote, told.append)
    assert made.specialists["student"].args == {"word": "memory://students/models/one"}


def test_labels_of_people_are_done_without_where_there_are_none(dataset: Dataset) -> None:
    parts = {
        "numbers": SpecialistPart(use=TOY + "Numbers"),
        "echo": SpecialistPart(use=TOY + "Echo", needs=["human", "numbers"]),
        "alone": SpecialistPart(use=TOY + "Echo", needs=["human"]),
    }
    made = with_students(Recipe(name="toy", specialists=parts).check(), dataset, print)
    assert made.specialists["echo"].needs == ["numbers"]
    with pytest.raises(RecipeError, match="human"):
        annotate(dataset, made, runner="inline", reporter=Reporter(terminal=False))
