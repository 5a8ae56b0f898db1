"""Filters and verdicts: every statement has one, with its reason, and the counts add up."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe, Where
from data_engine.runner.progress import Reporter
from data_engine.schema import MEMBER
from data_engine.verdicts import Judge
from filters.box_size import MinimumSide
from filters.fused_members import FusedMembers
from filters.score import MinimumScore
from filters.text_length import TextLength
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from tests.test_runner_inline import part, recipe
from tests.toy_sources import write_pictures


def rows(*said: Annotation, source: str = "s") -> pa.Table:
    table = AnnotationRows(source)
    assert table.add("i" * 32, said) == []
    return table.table()


def judge(**filters: tuple[object, Where]) -> Judge:
    parts = {
        name: FilterPart(use="filters.score:MinimumScore", where=where)
        for name, (_, where) in filters.items()
    }
    return Judge(parts, {name: made for name, (made, _) in filters.items()})  # type: ignore[misc]


def test_the_first_filter_that_drops_a_row_gives_the_reason_and_its_value():
    said = rows(
        Annotation("region", "a", box=(0, 0, 2, 9), score=0.1),
        Annotation("region", "b", box=(0, 0, 2, 9), score=0.9),
        Annotation("region", "c", box=(0, 0, 8, 9), score=0.9),
    )
    both = judge(low=(MinimumScore(0.5), Where()), tiny=(MinimumSide(4), Where()))
    verdicts = both(said)
    assert verdicts["dropped_by"].to_pylist() == ["low", "tiny", None]
    assert verdicts["value"].to_pylist() == [pytest.approx(0.1), 2.0, None]
    assert verdicts["kept"].to_pylist() == [False, False, True]


def test_boxes_that_were_fused_go_and_the_fused_one_stays():
    detector = rows(
        first := Annotation("region", "cup", "phrase", box=(0, 0, 8, 8), score=0.9),
        Annotation("region", box=(0, 0, 8, 8), parent=first, mask={"size": [8, 8], "counts": "P2"}),
        Annotation("region", "dog", "phrase", box=(20, 0, 28, 8), score=0.2),
        source="yolo",
    )
    ids = detector["annotation_id"].to_pylist()
    fused = rows(
        made := Annotation("region", "cup", "phrase", box=(0, 0, 8, 8), score=0.8),
        Annotation("region", ids[0], MEMBER, parent=made),
        source="fused",
    )
    verdicts = judge(fused=(FusedMembers(), Where(kind=["region"])))(pa.concat_tables([detector, fused]))
    # The mask hangs on the box that went; the dog's box went into none.
    assert verdicts["dropped_by"].to_pylist() == ["fused", "parent", None, None, None]
    none = judge(fused=(FusedMembers(), Where(kind=["region"])))(detector)
    assert none["kept"].to_pylist() == [True] * 3


def test_a_filter_sees_only_the_rows_that_where_selects():
    said = pa.concat_tables(
        [rows(Annotation("region", "a", score=0.1)), rows(Annotation("text", "a", score=0.1), source="t")]
    )
    assert judge(low=(MinimumScore(0.5), Where(source=["t"])))(said)["kept"].to_pylist() == [True, False]
    assert judge(low=(MinimumScore(0.5), Where(kind=["region"])))(said)["kept"].to_pylist() == [False, True]


def test_what_hangs_on_a_dropped_statement_falls_with_it_however_deep():
    text = Annotation("text", "a dog", score=0.1)
    phrase = Annotation("phrase", "dog", parent=text, box=(0, 0, 5, 5), score=0.9)
    mask = Annotation("phrase", parent=phrase, box=(0, 0, 5, 5), mask={"size": [5, 5], "counts": "0i0"})
    other = Annotation("text", "kept", score=0.9)
    verdicts = judge(low=(MinimumScore(0.5), Where()))(rows(text, phrase, mask, other))
    assert verdicts["dropped_by"].to_pylist() == ["low", "parent", "parent", None]


def test_rows_without_what_a_filter_measures_are_kept():
    said = rows(Annotation("text", "no score, no box"))
    for rule in (MinimumScore(0.5), MinimumSide(4)):
        assert judge(f=(rule, Where()))(said)["kept"].to_pylist() == [True]
    assert judge(f=(TextLength(), Where()))(rows(Annotation("region", box=(0, 0, 1, 1))))[
        "kept"
    ].to_pylist() == [True]


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(1, 20)), max_size=30))
def test_every_row_has_one_verdict_and_each_agrees_with_the_rule(said):
    table = rows(*(Annotation("region", "x", box=(0, 0, side, 30), score=score) for score, side in said))
    verdicts = judge(low=(MinimumScore(0.5), Where()), tiny=(MinimumSide(10), Where()))(table)
    expected = ["low" if score < 0.5 else "tiny" if side < 10 else None for score, side in said]
    assert verdicts["dropped_by"].to_pylist() == expected
    assert verdicts["annotation_id"].to_pylist() == table["annotation_id"].to_pylist()


@given(st.text(max_size=40))
def test_words_and_characters_are_counted_as_python_counts_them(text):
    said = rows(Annotation("text", text))
    stored = said["text"][0].as_py()
    assert TextLength().values(said).to_pylist() == [len(stored.split())]


@pytest.mark.parametrize("answer", [pa.array([True]), [True, True], pa.array([1, 0])])
def test_an_answer_that_is_not_one_truth_value_per_row_is_refused(answer):
    with pytest.raises(SpecialistError, match="filters.odd answered"):
        judge(odd=(lambda rows: answer, Where()))(rows(Annotation("text", "a"), Annotation("text", "b")))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 25)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=10)
    dataset = Dataset.open(str(tmp_path / "ds"))
    annotate(dataset, recipe(numbers=part("Numbers")), runner="inline", reporter=Reporter(terminal=False))
    return dataset


def scored(minimum: float, kind: str = "text") -> Recipe:
    low = FilterPart(use="filters.score:MinimumScore", args={"minimum": minimum}, where=Where(kind=[kind]))
    return Recipe(name="f", filters={"low": low}).check()


def test_the_funnel_adds_up_and_sql_says_the_same(dataset):
    summary = filter_dataset(dataset, scored(0.6))
    assert (summary.seen, summary.kept, dict(summary.dropped)) == (50, 0, {"low": 25, "parent": 25})
    assert sql(
        dataset, "SELECT dropped_by, count(*) AS n FROM verdicts GROUP BY 1 ORDER BY 1"
    ).to_pylist() == [
        {"dropped_by": "low", "n": 25},
        {"dropped_by": "parent", "n": 25},
    ]


def test_verdicts_are_made_anew_only_when_a_rule_or_the_annotations_change(dataset):
    filter_dataset(dataset, scored(0.6))
    assert filter_dataset(dataset, scored(0.6)).shards_skipped == 3
    again = filter_dataset(dataset, scored(0.4))
    assert (again.shards_done, again.kept) == (3, 50)
    annotate(
        dataset, recipe(numbers=part("Numbers", word="n")), runner="inline", reporter=Reporter(terminal=False)
    )
    assert filter_dataset(dataset, scored(0.4)).shards_done == 3


def test_a_recipe_without_filters_is_refused(dataset):
    with pytest.raises(RecipeError, match="no filters"):
        filter_dataset(dataset, Recipe(name="none"))
