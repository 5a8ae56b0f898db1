"""Filters and verdicts: every statement has one, with its reason, and the counts add up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
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
from tests.test_runner_inline import ask, part, recipe
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


class Wide:
    """Drops images wider than they are high, whole; looks at one row of each."""

    image_columns = ("width", "height")
    whole_image = True

    def __init__(self, most: float = 1.0) -> None:
        self.most = most

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.less_equal(self.values(annotations), self.most)

    def values(self, annotations: pa.Table) -> pa.Array:
        ratio = pc.divide(pc.cast(annotations["image_width"], pa.float32()), annotations["image_height"])
        return ratio.combine_chunks()


class Common:
    """Drops texts that more than `most` images have, in the whole data set."""

    def __init__(self, most: int = 1) -> None:
        self.most = most

    def survey(self, dataset: Dataset, where: Where) -> str:
        found = sql(
            dataset, "SELECT text FROM texts GROUP BY 1 HAVING count(DISTINCT image_id) > 10"
        ).to_pylist()
        self.common = pa.array([row["text"] for row in found], pa.string())
        return str(sorted(self.common.to_pylist()))

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.invert(pc.is_in(annotations["text"], self.common)).combine_chunks()


HERE = "tests.test_filters:"


def test_an_image_that_falls_takes_everything_with_it_but_no_other_image():
    seen = pa.concat_tables(
        [
            rows(Annotation("image", "12", "sharpness"), Annotation("text", "a")),
            rows(Annotation("text", "b"), source="t"),
        ]
    )
    other = AnnotationRows("s")
    other.add("j" * 32, [Annotation("text", "c"), Annotation("image", "3", "sharpness")])
    sizes = pa.table({"image_id": ["j" * 32, "i" * 32], "width": [10, 30], "height": [10, 10]})
    wide = judge(low=(MinimumScore(0.5), Where()), wide=(Wide(), Where(kind=["image"])))
    verdicts = wide(pa.concat_tables([seen, other.table()]), images=sizes)
    assert verdicts["dropped_by"].to_pylist() == ["wide", "wide", "wide", None, None]
    assert verdicts["value"].to_pylist() == [3.0, 3.0, 3.0, None, None]
    with pytest.raises(SpecialistError, match="width"):
        wide(seen)


def chain(minimum: float, characters: int) -> Recipe:
    return Recipe(
        name="f",
        filters={
            "low": FilterPart(use="filters.score:MinimumScore", args={"minimum": minimum}),
            "long": FilterPart(
                use="filters.text_length:TextLength",
                args={"minimum_words": 0, "maximum_characters": characters},
            ),
            "wide": FilterPart(use=HERE + "Wide", args={"most": 5.0}),
        },
    ).check()


@given(
    st.lists(
        st.tuples(st.sampled_from([0.4, 0.6, 0.8]), st.sampled_from([6, 7, 100])), min_size=2, max_size=4
    )
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_going_on_from_earlier_verdicts_gives_what_a_fresh_run_gives(dataset, steps):
    rows = "SELECT annotation_id, kept, dropped_by, value FROM verdicts ORDER BY 1"
    verdicts, aside = Path(dataset.url) / "verdicts", Path(dataset.url) / "aside"
    for minimum, characters in steps:
        filter_dataset(dataset, chain(minimum, characters))
        again = ask(dataset, rows)
        verdicts.rename(aside)
        filter_dataset(dataset, chain(minimum, characters))
        assert again == ask(dataset, rows) and again
        shutil.rmtree(verdicts)
        aside.rename(verdicts)


def test_only_the_filters_after_a_change_judge_again(dataset, monkeypatch):
    calls = []
    for kind in (MinimumScore, TextLength):
        plain = kind.__call__
        monkeypatch.setattr(
            kind,
            "__call__",
            lambda self, rows, plain=plain, kind=kind: (calls.append(kind), plain(self, rows))[1],
        )
    filter_dataset(dataset, chain(0.6, 7))
    assert calls == [MinimumScore, TextLength] * 3
    calls.clear()
    summary = filter_dataset(dataset, chain(0.6, 6))
    assert calls == [TextLength] * 3
    assert summary.seen == summary.kept + sum(summary.dropped.values())


def test_a_filter_may_look_at_the_whole_data_set_first(dataset):
    common = Recipe(name="f", filters={"common": FilterPart(use=HERE + "Common")}).check()
    assert filter_dataset(dataset, common).dropped["common"] == 0
    annotate(dataset, recipe(same=part("Same")), runner="inline", reporter=Reporter(terminal=False))
    summary = filter_dataset(dataset, common)
    assert summary.dropped["common"] == 25 and summary.shards_done == 3


def test_a_sample_says_what_would_come_out_and_writes_nothing(dataset):
    seen = filter_dataset(dataset, scored(0.6), sample=0.4)
    assert (seen.shards_done, seen.images) == (1, 10)
    assert seen.seen == seen.kept + sum(seen.dropped.values()) > 0
    assert not dataset.store.files("verdicts/0")
    with pytest.raises(RecipeError, match="sample"):
        filter_dataset(dataset, scored(0.6), sample=0)


def test_images_of_which_nothing_is_kept_are_counted(dataset):
    nothing = filter_dataset(dataset, scored(1.0))
    assert (nothing.images, nothing.bare, nothing.kept) == (25, 25, 0)
