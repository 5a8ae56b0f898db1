"""A merge of originals with a student: what must hold whatever they say, and the rule of each kind."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.schema import ANNOTATIONS
from specialists.merge import Merge
from specialists.merge_rows import REASONS
from tests.merge_statements import EMPTY, IMAGE, again, contents, judged, merged, parts, statements, table


@st.composite
def pages(draw: st.DrawFn) -> tuple[pa.Table, pa.Table, pa.Table, pa.Table]:
    """People's, the originals' and the student's statements, and likelihoods of all."""
    human, noisy = (table(name, draw(statements())) for name in ("human", "noisy"))
    student = table("student", draw(statements()))
    return human, noisy, student, judged(draw, human, noisy, student)


@settings(max_examples=40)
@given(pages())
def test_every_statement_has_parents_and_every_original_an_end(page):
    human, noisy, student, _ = page
    said, members, reasons, doubted = parts(merged(pa.concat_tables(page)))
    there = {i for rows in (human, noisy, student) for i in rows["annotation_id"].to_pylist()}
    assert len({row["annotation_id"] for row in said}) == len(said)
    for row in said:
        assert members[row["annotation_id"]]
        assert there.issuperset(members[row["annotation_id"]])
        assert reasons[row["annotation_id"]] in REASONS
    used = {i for ids in members.values() for i in ids}
    originals = {*human["annotation_id"].to_pylist(), *noisy["annotation_id"].to_pylist()}
    # Each is a member of something or was left out with a reason, and never both.
    assert len(doubted) == len(set(doubted)) and not used & set(doubted)
    assert originals == (used & originals) | set(doubted)
    # No words but those of a parent; no phrase but one that its text spells.
    texts = {row["annotation_id"]: row["text"] for rows in page[:3] for row in rows.to_pylist()}
    by_id = {row["annotation_id"]: row for row in said}
    for row in said:
        if row["span"] is not None:
            assert by_id[row["parent_id"]]["text"][slice(*row["span"])] == row["text"]
        elif row["text"] is not None:
            assert row["text"] in {texts[i] for i in members[row["annotation_id"]]}


@settings(max_examples=40)
@given(pages())
def test_what_people_said_stays(page):
    said, members, reasons, _ = parts(merged(pa.concat_tables(page)))
    assert not contents(page[0]) - contents(said)
    kept = {
        i for row in said if reasons[row["annotation_id"]] == "human" for i in members[row["annotation_id"]]
    }
    assert kept.issuperset(page[0]["annotation_id"].to_pylist())


@settings(max_examples=40)
@given(statements())
def test_with_a_student_that_says_nothing_the_originals_stay_as_they_are(noisy):
    rows = table("noisy", noisy)
    said, _, reasons, doubted = parts(merged(rows))
    assert contents(said) == contents(rows) and not doubted
    assert set(reasons.values()) <= {"kept"}


@settings(max_examples=40)
@given(statements(), st.data())
def test_with_a_student_that_says_the_same_the_originals_stay_as_they_are(noisy, data):
    rows, student = table("noisy", noisy), table("student", again(noisy))
    said, _, reasons, doubted = parts(merged(pa.concat_tables([rows, student])))
    assert contents(said) == contents(rows) and not doubted
    assert set(reasons.values()) <= {"agreed"}
    # The student confirms all: no likelihood takes a statement back.
    doubt = judged(data.draw, rows)
    said, _, _, doubted = parts(merged(pa.concat_tables([rows, student, doubt]), doubt_below_named=0))
    assert not doubted


@settings(max_examples=40)
@given(pages(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(page, shuffling: random.Random):
    said = pa.concat_tables(page)
    rows = said.to_pylist()
    shuffling.shuffle(rows)
    assert merged(said).equals(merged(pa.Table.from_pylist(rows, schema=ANNOTATIONS)))


@settings(max_examples=20)
@given(pages())
def test_people_count_as_any_other_source_where_the_recipe_says_so(page):
    merge = Merge(["noisy", "human"], "student", doubt="doubt", human=[])
    rows = merge([IMAGE], pa.concat_tables(page))[0]
    assert not any(row.text == "human" and row.granularity == "change" for row in rows)


def test_an_image_of_which_nothing_was_said_has_nothing():
    assert Merge(["noisy"], "student")([IMAGE], EMPTY) == [[]]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"originals": []}, "needs `originals`"),
        ({"originals": "noisy"}, "lists of sources"),
        ({"student": "noisy"}, "two parts"),
        ({"doubt": "student"}, "two parts"),
        ({"iou": 0}, "iou"),
        ({"weight_student": -1}, "weight_student"),
        ({"unscored": 2}, "unscored"),
        ({"add_above": -1}, "add_above"),
        ({"add_above": {"boxes": 0.5}}, "no kind"),
        ({"move_below": {"region": float("nan")}}, "move_below"),
    ],
)
def test_settings_that_make_no_sense_are_refused(args, message):
    with pytest.raises(RecipeError, match=message):
        Merge(**{"originals": ["noisy"], "student": "student", **args})


def test_a_source_without_a_part_ends_the_run():
    said = table("nosy", [])
    assert Merge(["noisy"], "student")([IMAGE], said) == [[]]
    said = table("nosy", [Annotation("text", "A star.", "brief")])
    with pytest.raises(SpecialistError, match="'nosy' is needed"):
        Merge(["noisy"], "student")([IMAGE], said)
    with pytest.raises(SpecialistError, match="nothing to merge"):
        Merge(["noisy"], "student")([IMAGE], None)
