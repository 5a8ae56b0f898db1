"""What a model may say in any state: it is bounded, what is not taken is one row in `failures`, and the
image's other statements stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import (
    MAX_CHARACTERS,
    MAX_LABEL,
    MAX_ROWS,
    MAX_TEXT,
    Annotation,
    AnnotationRows,
    storable,
)
from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.run_lengths import check_fills, run_lengths
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from tests.toy_sources import write_pictures
from tests.toy_statements import BAD

SIZE = (24, 16)

REFUSED = [how for how in BAD if how not in (
    "ten thousand boxes", "10 kB labels", "megabytes", "none", "generator", "own errors",
)]  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 3, SIZE)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    return Dataset.open(str(tmp_path / "ds"))


def run(dataset: Dataset, **args: object) -> None:
    part = SpecialistPart(use="tests.toy_statements:Misbehaves", args=args, batch=2)
    recipe = Recipe(name="toy", specialists={"bad": part}).check()
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))


def ask(dataset: Dataset, query: str) -> list[tuple]:
    return [tuple(row.values()) for row in sql(dataset, query).to_pylist()]


GOOD = "SELECT count(*) FROM texts WHERE text = 'good'"
ALL = "SELECT count(*) FROM annotations"
FAILURES = "SELECT key, reason, message FROM failures ORDER BY key, reason"


@pytest.mark.parametrize("how", REFUSED)
def test_a_statement_that_no_reader_could_use_is_refused_alone(dataset, how):
    run(dataset, how=how, on=[1])
    assert ask(dataset, GOOD) == ask(dataset, ALL) == [(3,)]
    ((key, reason, message),) = ask(dataset, FAILURES)
    assert (key, reason) == ("00001.png", "bad_annotation")
    assert message.startswith("1 of 2 annotations refused; the first: ") and len(message) <= 400


def test_of_ten_thousand_boxes_the_first_are_kept_and_the_rest_counted(dataset):
    run(dataset, how="ten thousand boxes", on=[1])
    assert ask(dataset, GOOD) == [(3,)]
    assert ask(dataset, "SELECT count(*), min(box[4]) FROM regions") == [(MAX_ROWS - 1, 5)]
    ((_, reason, message),) = ask(dataset, FAILURES)
    assert reason == "too_many" and message.startswith("501 annotations left out")


def test_long_labels_are_cut_and_counted(dataset):
    run(dataset, how="10 kB labels", on=[1])
    assert ask(dataset, "SELECT DISTINCT length(text) FROM regions") == [(MAX_LABEL,)]
    ((_, reason, message),) = ask(dataset, FAILURES)
    assert reason == "too_long" and message.startswith("3 texts were cut")


def test_all_the_text_about_an_image_is_bounded(dataset):
    run(dataset, how="megabytes", on=[1])
    ((characters,),) = ask(dataset, "SELECT sum(length(text)) FROM texts WHERE text <> 'good'")
    assert MAX_CHARACTERS <= characters < MAX_CHARACTERS + MAX_TEXT
    ((_, reason, message),) = ask(dataset, FAILURES)
    assert reason == "too_many" and message.startswith("19 annotations left out")


@pytest.mark.parametrize("how", ["none", "generator"])
def test_an_answer_that_is_no_list_costs_its_own_image(dataset, how):
    run(dataset, how=how, on=[1])
    assert ask(dataset, GOOD) == ask(dataset, ALL) == [(2,)]
    ((key, reason, _),) = ask(dataset, FAILURES)
    assert (key, reason) == ("00001.png", "specialist_error")


def test_errors_among_the_statements_become_failures_one_for_each_reason(dataset):
    run(dataset, how="own errors", on=[1])
    assert ask(dataset, GOOD) == ask(dataset, ALL) == [(3,)]
    odd, other = ask(dataset, "SELECT reason, message FROM failures ORDER BY length(reason)")
    assert odd == ("too_odd", "an odd thing (and 1 more)")
    assert (len(other[0]), len(other[1])) == (100, 2000)


def test_a_model_that_says_nothing_is_no_failure(dataset):
    part = SpecialistPart(use="tests.toy_statements:Boxes", args={"boxes": []})
    annotate(
        dataset,
        Recipe(name="toy", specialists={"none": part}),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    assert ask(dataset, "SELECT (SELECT count(*) FROM annotations), (SELECT count(*) FROM failures)") == [
        (0, 0)
    ]


def stored(*said: Annotation, size: tuple[int, int] | None = SIZE) -> list[dict]:
    rows = AnnotationRows("s")
    assert rows.add("i" * 32, said, size) == []
    return rows.table().to_pylist()


corner = st.floats(-30, 60, width=32)


@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=30))
def test_a_box_is_stored_inside_the_image_with_half_its_area_or_more_or_not_at_all(boxes):
    rows = AnnotationRows("s")
    errors = rows.add("i" * 32, [Annotation("region", "x", box=box) for box in boxes], SIZE)
    kept = rows.table()["box"].to_pylist()
    assert len(kept) + len(errors) == len(boxes)
    for x0, y0, x1, y1 in kept:
        assert 0 <= x0 < x1 <= SIZE[0] and 0 <= y0 < y1 <= SIZE[1]
    whole = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes if x0 < x1 and y0 < y1]
    inside = [
        max(min(x1, SIZE[0]) - max(x0, 0), 0) * max(min(y1, SIZE[1]) - max(y0, 0), 0)
        for x0, y0, x1, y1 in boxes
        if x0 < x1 and y0 < y1
    ]
    # Not judged here: what is so thin, or so near to a half, that rounding decides.
    sure = [a >= 0.5001 * b for a, b in zip(inside, whole, strict=True) if b > 1e-3]
    assert len(kept) >= sum(sure)


def test_a_box_that_reaches_a_little_over_the_edge_is_clipped_and_so_is_a_quad():
    (row,) = stored(
        Annotation("region", "x", "ocr", box=(-1, 2, 10, 17), quad=(-1, 2, 10, 2, 10, 17, -1, 17))
    )
    assert row["box"] == [0, 2, 10, 16]
    assert row["quad"] == [0, 2, 10, 2, 10, 16, 0, 16]


def test_without_the_images_size_nothing_is_clipped():
    (row,) = stored(Annotation("region", "x", box=(-1, 2, 10, 17)), size=None)
    assert row["box"] == [-1, 2, 10, 17]


def test_what_rounding_puts_above_one_is_one():
    assert [row["score"] for row in stored(*(Annotation("text", "x", score=s) for s in (1.0005, -1e-9)))] == [
        1,
        0,
    ]


@given(st.text())
def test_stored_text_has_as_many_characters_and_none_that_controls(text):
    clean = storable(text)
    assert len(clean) == len(text)
    assert clean.encode().decode() == clean == storable(clean)
    assert not any((ord(c) < 32 and c not in "\t\n\r") or 127 <= ord(c) < 160 for c in clean)


def test_spans_still_fit_where_control_characters_stood():
    text = Annotation("text", "a\0\x1b red\ud800 cup <loc_1>", "brief")
    phrase = Annotation("phrase", "cup", parent=text, span=(9, 12), box=(1, 1, 5, 5))
    kept, below = stored(text, phrase)
    assert kept["text"] == "a   red? cup <loc_1>"
    start, end = below["span"]
    assert kept["text"][start:end] == "cup"


def test_a_span_beyond_its_text_is_refused():
    text = Annotation("text", "a cup", "brief")
    rows = AnnotationRows("s")
    errors = rows.add("i" * 32, [text, Annotation("phrase", "cup", parent=text, span=(2, 6))])
    assert [e.reason for e in errors] == ["bad_annotation"] and len(rows) == 1


def test_what_hangs_on_a_statement_left_out_is_left_out_with_it():
    many = [Annotation("text", str(i), "brief") for i in range(MAX_ROWS)]
    region = Annotation("region", "x", "phrase", box=(1, 1, 5, 5))
    mask = Annotation("region", parent=region, box=(1, 1, 5, 5), mask={"size": [16, 24], "counts": "0P<"})
    rows = AnnotationRows("s")
    (error,) = rows.add("i" * 32, [*many, region, mask], SIZE)
    assert error.reason == "too_many" and error.message.startswith("2 annotations left out")
    # The limit is one image's: the next image has its own.
    assert rows.add("j" * 32, [region, mask], SIZE) == []


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=40), st.booleans())
def test_run_lengths_are_read_as_pycocotools_writes_them(runs, starts_inside):
    runs = [0, *runs] if starts_inside else runs
    whole = sum(runs)
    counts = pycocotools.mask.frPyObjects({"size": [whole, 1], "counts": runs}, whole, 1)["counts"].decode()
    assert run_lengths(counts).tolist() == runs
    check_fills(run_lengths(counts), whole, 1)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_a_string_that_is_no_run_lengths_of_the_image_never_reaches_the_table(counts):
    rows = AnnotationRows("s")
    mask = Annotation("region", box=(1, 1, 5, 5), mask={"size": [16, 24], "counts": counts})
    errors = rows.add("i" * 32, [mask], SIZE)
    assert len(rows) + len(errors) == 1
    for row in rows.table().to_pylist():
        assert run_lengths(row["mask"]["counts"]).sum() == 16 * 24


def test_arrays_of_the_model_libraries_are_taken_as_numbers():
    box = np.array([1, 2, 3, 4], np.float16)
    (row,) = stored(Annotation("region", "x", box=box, score=np.float32(0.5)))
    assert (row["box"], row["score"]) == ([1, 2, 3, 4], 0.5)
