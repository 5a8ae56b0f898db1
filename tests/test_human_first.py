"""People's labels and models' merged: people's stay, what repeats or contradicts them goes, with its reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.ingest.run import ingest
from data_engine.overlap import iou
from data_engine.query import connect, sql
from data_engine.recipe import FilterPart, Recipe, SpecialistPart, Where, read_recipe
from data_engine.runner.progress import Reporter
from data_engine.verdicts import Judge
from filters.human_first import RepeatsHuman, Unconfirmed
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from tests.toy_sources import write_pictures

ONE, TWO = "1" * 32, "2" * 32


def rows(source: str, *said: Annotation, image: str = ONE) -> pa.Table:
    table = AnnotationRows(source)
    assert table.add(image, said) == []
    return table.table()


def region(name: str, *box: float, score: float | None = None) -> Annotation:
    return Annotation("region", name, "phrase", box=box, score=score)


def kept(rule, *tables: pa.Table) -> list[tuple[str, str]]:
    table = pa.concat_tables(tables)
    keep = rule(table).to_pylist()
    found = zip(table["source"].to_pylist(), table["text"].to_pylist(), keep, strict=True)
    return [(source, text) for source, text, stays in found if stays]


def test_a_models_box_that_repeats_a_persons_goes_and_the_others_stay():
    people = rows("human", region("cup", 0, 0, 10, 10), region("dog", 20, 20, 40, 40))
    models = rows(
        "detector",
        region("Cup", 0, 0, 10, 12),  # repeats
        region("cup", 30, 30, 40, 40),  # elsewhere
        region("dog", 0, 0, 10, 10),  # there, but another class
        region("cup", 0, 0, 10, 21),  # IoU below 0.5
    )
    elsewhere = rows("detector", region("cup", 0, 0, 10, 10), image=TWO)
    table = pa.concat_tables([people, models, elsewhere])
    assert RepeatsHuman()(table).to_pylist() == [True, True, False, True, True, True, True]
    assert RepeatsHuman().values(table).to_pylist() == [
        None, None, pytest.approx(10 / 12), 0, 0, pytest.approx(10 / 21), 0,
    ]  # fmt: skip


def test_other_names_of_a_class_repeat_it_too():
    people, models = rows("human", region("person", 0, 0, 9, 9)), rows("m", region("Human", 0, 0, 9, 9))
    assert len(kept(RepeatsHuman(), people, models)) == 2
    assert kept(RepeatsHuman(same={"person": ["human"]}), people, models) == [("human", "person")]


def test_only_detections_are_judged():
    whole = region("cup", 0, 0, 9, 9)
    others = [
        Annotation("text", "cup", "brief"),
        Annotation("region", "cup", "ocr", box=(0, 0, 9, 9)),
        Annotation("region", "cup", "brief", "p" * 32, box=(0, 0, 9, 9)),
        Annotation("phrase", "cup", None, "t" * 32, box=(0, 0, 9, 9)),
        Annotation("region", None, "proposal", box=(0, 0, 9, 9)),
    ]
    table = pa.concat_tables([rows("human", whole), rows("m", *others)])
    for rule in (RepeatsHuman(), Unconfirmed(["cup"])):
        assert rule(table).to_pylist() == [True] * 6


def test_boxes_of_a_complete_class_that_no_person_drew_go_in_every_image():
    people = rows("human", region("cup", 0, 0, 10, 10))
    models = rows(
        "m", region("cup", 0, 0, 10, 11), region("cup", 20, 20, 30, 30), region("dog", 20, 20, 30, 30)
    )
    unlabelled = rows("m", region("cup", 0, 0, 10, 10), image=TWO)
    assert kept(Unconfirmed(["Cup"]), people, models, unlabelled) == [
        ("human", "cup"), ("m", "cup"), ("m", "dog"),
    ]  # fmt: skip


def test_where_named_a_class_is_complete_only_in_images_in_which_a_person_names_it():
    people = [
        rows("human", region("cup", 0, 0, 10, 10), Annotation("text", "Dog", "class"), Annotation("text", "a cat", "brief")),
    ]  # fmt: skip
    models = rows(
        "m", region("cup", 20, 20, 30, 30), region("dog", 20, 20, 30, 30), region("a cat", 20, 20, 30, 30)
    )
    elsewhere = rows("m", region("cup", 0, 0, 10, 10), image=TWO)
    assert kept(Unconfirmed(where_named=True), *people, models, elsewhere)[3:] == [
        ("m", "a cat"),
        ("m", "cup"),
    ]


name = st.sampled_from(["cup", "dog", "cat"])
box = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))
said = st.lists(
    st.tuples(st.sampled_from([ONE, TWO]), st.sampled_from(["human", "a", "b"]), name, box), max_size=25
)


@given(said, st.sampled_from([0.3, 0.5, 0.9]))
def test_both_rules_are_what_pair_by_pair_comparison_gives_and_never_drop_a_persons_row(said, least):
    tables = [
        rows(source, region(text, x, y, x + w, y + h), image=image) for image, source, text, (x, y, w, h) in said
    ]  # fmt: skip
    if not tables:
        return
    table = pa.concat_tables(tables)
    repeats = RepeatsHuman(iou=least)(table).to_pylist()
    unconfirmed = Unconfirmed(["cup"], where_named=True, iou=least)(table).to_pylist()
    boxes = np.array([(x, y, x + w, y + h) for *_, (x, y, w, h) in said], float)
    overlaps = iou(boxes, boxes)
    for i, (image, source, text, _) in enumerate(said):
        mine = [j for j, (im, so, te, _) in enumerate(said) if (im, so, te) == (image, "human", text)]
        best = max((overlaps[i, j] for j in mine), default=0.0)
        assert repeats[i] == (source == "human" or best < least)
        complete = text == "cup" or bool(mine)
        assert unconfirmed[i] == (source == "human" or not complete or best >= least)


def test_no_rows_give_no_verdicts():
    nothing = rows("m")
    assert len(RepeatsHuman()(nothing)) == len(Unconfirmed(["cup"])(nothing)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepeatsHuman(iou=0), "iou is 0"),
        (lambda: RepeatsHuman(iou=1.1), "iou is 1.1"),
        (lambda: Unconfirmed(), "completely"),
        (lambda: Unconfirmed("cup"), "completely"),
        (lambda: RepeatsHuman(same={"a": ["c"], "b": ["c"]}), "'c' is a name of 'a' and of 'b'"),
    ],
)
def test_args_that_make_no_sense_are_refused(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


def test_masks_and_texts_of_a_dropped_box_fall_with_it_and_the_reason_is_the_filters_name():
    repeated = region("cup", 0, 0, 9, 9)
    text = Annotation("region", "a red cup", "brief", repeated, box=(0, 0, 9, 9))
    table = pa.concat_tables([rows("human", region("cup", 0, 0, 9, 9)), rows("m", repeated, text)])
    where = Where(kind=["region"])
    part = FilterPart(use="filters.human_first:RepeatsHuman", where=where)
    verdicts = Judge({"drawn": part}, {"drawn": RepeatsHuman()})(table)
    assert verdicts["dropped_by"].to_pylist() == [None, "drawn", "parent"]
    assert verdicts["value"].to_pylist() == [None, 1.0, None]


# --- In a data set ----------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two pictures, of which a person and a detector say the same three things each."""
    write_pictures(tmp_path / "pictures", 2, (64, 64))
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    dataset = Dataset.open(str(tmp_path / "ds"))
    people = AnnotationRows("human")
    for image_id in sql(dataset, "SELECT image_id FROM images ORDER BY uri")["image_id"].to_pylist():
        said = [
            region("cup", 0, 0, 10, 10),
            region("bicycle", 20, 20, 60, 60),
            region("person", 20, 20, 60, 55),
        ]
        assert people.add(image_id, said, (64, 64)) == []
    dataset.write_annotations("human", "00000", people.table(), {"fingerprint": "people"})
    boxes = [["cup", 0, 0, 10, 11, 0.9], ["mug", 0, 0, 10, 10, 0.75], ["Person", 20, 20, 60, 58, 0.5]]
    detector = SpecialistPart(use="tests.toy_statements:Boxes", args={"boxes": boxes})
    annotate(
        dataset,
        Recipe(name="toy", specialists={"detector": detector}),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    return dataset


def test_the_funnel_of_a_recipe_names_both_rules(dataset):
    both = Recipe(
        name="merged",
        filters={
            "drawn-by-people": FilterPart(use="filters.human_first:RepeatsHuman", where=Where(kind=["region"])),
            "not-drawn-by-people": FilterPart(
                use="filters.human_first:Unconfirmed", args={"classes": ["mug"]}, where=Where(kind=["region", "text"])
            ),
        },
    ).check()  # fmt: skip
    summary = filter_dataset(dataset, both)
    assert (summary.seen, summary.kept) == (12, 6)
    assert dict(summary.dropped) == {"drawn-by-people": 4, "not-drawn-by-people": 2}


def test_conflicts_lists_boxes_that_overlap_under_other_names_but_not_those_that_a_person_explains(dataset):
    found = sql(
        dataset, "SELECT human_text, text, source, score, iou FROM conflicts ORDER BY text"
    ).to_pylist()
    # The detector's person overlaps the person's bicycle too, and is a person's person all the same.
    assert found == 2 * [
        {"human_text": "cup", "text": "mug", "source": "detector", "score": 0.75, "iou": 1.0}
    ]


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("macros")
    write_pictures(folder / "pictures", 1)
    ingest(str(folder / "pictures"), str(folder / "ds"))
    with connect(Dataset.open(str(folder / "ds"))) as connection:
        yield connection


@given(st.lists(st.tuples(box, box), min_size=1, max_size=20))
def test_box_iou_in_sql_is_that_of_numpy(connection, pairs):
    corners = [[(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in pair] for pair in pairs]
    expected = [float(iou(np.array([a]), np.array([b]))[0, 0]) for a, b in corners]
    values = ", ".join(f"({list(a)}, {list(b)})" for a, b in corners)
    found = connection.sql(f"SELECT box_iou(a, b) AS iou FROM (VALUES {values}) t(a, b)").fetchall()
    assert [v for (v,) in found] == pytest.approx(expected)


def test_the_pages_recipe_is_sound_and_its_queries_run(dataset):
    page = (Path(__file__).resolve().parents[1] / "docs" / "merging.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    assert read_recipe(example[1], "docs/merging.md").ordered()[-1] == "fused"
    queries = re.findall(r'^fde sql DATASET "(.*?)"$', page, re.DOTALL | re.MULTILINE)
    assert len(queries) >= 3
    for query in queries:
        sql(dataset, query)
