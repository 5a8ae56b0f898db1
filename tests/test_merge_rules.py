"""Each rule of a merge on one small case: what comes of it, why, and from what."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, RecipeError
from data_engine.image import Image
from specialists.merge import Merge
from tests.merge_statements import IMAGE, MASKS, merged, parts, table


def region(
    name: str | None, *box: float, score: float | None = None, granularity: str = "phrase", **more: Any
) -> Annotation:
    return Annotation("region", name, granularity, box=box, score=score, **more)


def link(text: Annotation, words: str, *box: float, score: float | None = None) -> Annotation:
    start = (text.text or "").index(words)
    return Annotation("phrase", words, None, text, (start, start + len(words)), box, score=score)


def likelihoods(*values: tuple[pa.Table, int, str, float]) -> pa.Table:
    """Scores of (table, row, measure, value)."""
    made = []
    for rows, at, measure, value in values:
        row = rows.slice(at, 1).to_pylist()[0]
        made.append(Annotation(row["kind"], None, measure, row["annotation_id"], score=value))
    return table("doubt", made)


def outcome(*tables: pa.Table, **args: Any) -> tuple[list[tuple[Any, ...]], int]:
    """(reason, kind, granularity, text, box rounded) of each statement but masks, sorted; how many were doubted."""
    said, _, reasons, doubted = parts(merged(pa.concat_tables(tables), **args))
    rows = [
        (
            reasons[row["annotation_id"]],
            row["kind"],
            row["granularity"],
            row["text"],
            None if row["box"] is None else tuple(round(v, 2) for v in row["box"]),
        )
        for row in said
        if row["mask"] is None
    ]
    return sorted(rows, key=str), len(doubted)


def test_boxes_of_one_name_at_one_place_are_their_mean_by_score_and_weight():
    noisy = table("noisy", [region("cup", 0, 0, 20, 20, score=0.5)])
    student = table("student", [region("Cup", 0, 0, 20, 24, score=1.0)])
    found, doubted = outcome(noisy, student)
    assert found == [("agreed", "region", "phrase", "cup", (0, 0, 20, 22.67))] and not doubted
    found, _ = outcome(noisy, student, weight_student={"region": 0.5})
    assert found == [("agreed", "region", "phrase", "cup", (0, 0, 20, 22))]
    # How likely the student finds the original's place counts too, and below a threshold its box is not used.
    found, _ = outcome(noisy, student, likelihoods((noisy, 0, "located", 0.5)))
    assert found == [("agreed", "region", "phrase", "cup", (0, 0, 20, 23.2))]
    found, _ = outcome(noisy, student, likelihoods((noisy, 0, "located", 0.05)))
    assert found == [("moved", "region", "phrase", "cup", (0, 0, 20, 24))]


def test_a_score_is_the_surest_members_and_lower_where_the_student_doubts_alone():
    student = table("student", [region("cup", 0, 0, 20, 20, score=0.5)])
    for own, expected in ((0.25, 0.5), (0.75, 0.75), (None, None)):
        noisy = table("noisy", [region("cup", 0, 0, 20, 20, score=own)])
        (row,), *_ = parts(merged(pa.concat_tables([noisy, student])))
        assert row["score"] == expected
    (row,), *_ = parts(merged(noisy))
    assert row["score"] is None
    doubt = likelihoods((noisy, 0, "named", 0.5), (noisy, 0, "located", 0.25))
    (row,), *_ = parts(merged(pa.concat_tables([noisy, doubt])))
    assert row["score"] == 0.25


@pytest.mark.parametrize(("score", "comes"), [(0.49, False), (0.5, True), (None, True)])
def test_what_only_the_student_says_is_added_above_a_threshold(score, comes):
    student = table("student", [region("cup", 0, 0, 20, 20, score=score)])
    found, _ = outcome(student)
    assert found == ([("added", "region", "phrase", "cup", (0, 0, 20, 20))] if comes else [])
    found, _ = outcome(student, add_above={"region/phrase": 2, "region": 0})
    assert found == []


@pytest.mark.parametrize("measure", ["named", "located"])
def test_what_only_the_originals_say_is_dropped_where_the_student_finds_it_unlikely(measure):
    cup = region("cup", 0, 0, 20, 20)
    noisy = table("noisy", [cup, region("a red cup", 0, 0, 20, 20, granularity="brief", parent=cup)])
    found, doubted = outcome(noisy, likelihoods((noisy, 0, measure, 0.09)))
    assert found == [] and doubted == 2
    found, doubted = outcome(noisy, likelihoods((noisy, 0, measure, 0.11)))
    assert len(found) == 2 and not doubted


def test_another_name_at_one_place_is_taken_where_the_original_is_unlikely():
    star = region("star", 0, 0, 20, 20)
    noisy = table("noisy", [star, region("a red star", 0, 0, 20, 20, granularity="brief", parent=star)])
    cup = region("cup", 0, 0, 20, 20)
    student = table("student", [cup, region("a red cup", 0, 0, 20, 20, granularity="brief", parent=cup)])
    found, doubted = outcome(noisy, student, likelihoods((noisy, 0, "named", 0.4)))
    assert found == [
        ("added", "region", "brief", "a red cup", (0, 0, 20, 20)),
        ("renamed", "region", "phrase", "cup", (0, 0, 20, 20)),
    ]
    assert doubted == 1  # the description says the name that it lost
    for more in ([], [likelihoods((noisy, 0, "named", 0.6))]):
        found, doubted = outcome(noisy, student, *more)
        assert [row[3] for row in found] == ["a red star", "star"] and not doubted


def test_a_box_that_is_out_of_place_is_the_thing_that_the_student_sees_close_by():
    noisy = table("noisy", [region("cup", 0, 0, 20, 20)])
    student = table("student", [region("cup", 12, 0, 32, 20, score=0.9)])  # IoU 0.25
    found, doubted = outcome(noisy, student, likelihoods((noisy, 0, "located", 0.4)))
    assert found == [("moved", "region", "phrase", "cup", (12, 0, 32, 20))] and not doubted
    found, doubted = outcome(noisy, student, likelihoods((noisy, 0, "located", 0.6)))
    assert found == [("kept", "region", "phrase", "cup", (0, 0, 20, 20))] and not doubted
    # Where nobody judged the place, further away, and under other names they are two things.
    both = [
        ("added", "region", "phrase", "cup", (12, 0, 32, 20)),
        ("kept", "region", "phrase", "cup", (0, 0, 20, 20)),
    ]
    assert outcome(noisy, student)[0] == both
    assert outcome(noisy, student, likelihoods((noisy, 0, "located", 0.4)), near_iou=0.3)[0] == both
    bell = table("student", [region("bell", 12, 0, 32, 20, score=0.9)])
    found, _ = outcome(noisy, bell, likelihoods((noisy, 0, "located", 0.4)))
    assert [row[3] for row in found] == ["bell", "cup"]


def test_of_the_students_boxes_of_one_name_at_one_place_the_surer_one_counts():
    twice = [region("cup", 0, 0, 20, 20, score=0.6), region("Cup", 0, 0, 20, 18, score=0.8)]
    student = table("student", [*twice, region("bell", 0, 0, 20, 19, score=0.7)])
    found, _ = outcome(student)
    assert [row[3:] for row in found] == [("Cup", (0, 0, 20, 18)), ("bell", (0, 0, 20, 19))]
    places = [region(None, 0, 0, 20, side, granularity="proposal", score=0.9) for side in (18, 20)]
    assert len(outcome(table("student", places))[0]) == 2


def test_on_images_that_were_learnt_from_other_thresholds_count():
    taught = {"add_above": {"region/phrase": 0.3}}
    # Which images are held out, digits of their ids tell.
    for digit, comes in (("f", 1), ("0", 0)):
        said = table("student", [region("cup", 0, 0, 20, 20, score=0.4)], digit * 32)
        rows = Merge(["noisy"], "student", taught=taught, untaught=0.1)(
            [Image(digit * 32, IMAGE.pixels)], said
        )
        boxes = [row for row in rows[0] if isinstance(row, Annotation) and row.box is not None]
        assert len(boxes) == comes
    with pytest.raises(RecipeError, match="untaught"):
        Merge(["noisy"], "student", taught=taught)


def test_one_box_for_two_things_and_two_for_one_are_resolved_where_they_are_unlikely():
    whole = table("noisy", [region("cup", 0, 0, 40, 20)])
    halves = table(
        "student", [region("cup", 0, 0, 18, 20, score=0.1), region("cup", 22, 0, 40, 20, score=0.1)]
    )
    found, doubted = outcome(whole, halves, likelihoods((whole, 0, "located", 0.01)))
    assert [row[::4] for row in found] == [
        ("parted", (0, 0, 18, 20)),
        ("parted", (22, 0, 40, 20)),
    ] and not doubted
    assert [row[0] for row in outcome(whole, halves)[0]] == ["kept"]

    halves = table("noisy", [region("cup", 0, 0, 18, 20), region("cup", 22, 0, 40, 20)])
    whole = table("student", [region("cup", 0, 0, 40, 20, score=0.1)])
    low = likelihoods((halves, 0, "located", 0.01), (halves, 1, "located", 0.01))
    found, doubted = outcome(halves, whole, low)
    assert found == [("joined", "region", "phrase", "cup", (0, 0, 40, 20))] and not doubted
    assert [row[0] for row in outcome(halves, whole)[0]] == ["kept", "kept"]


def test_people_win_at_their_places_and_other_names_of_the_originals_stay():
    human = table("human", [region("cup", 0, 0, 20, 20)])
    noisy = table("noisy", [region("cup", 0, 0, 20, 22), region("saucer", 0, 0, 20, 21)])
    student = table("student", [region("star", 0, 0, 20, 20, score=1.0)])
    low = likelihoods((human, 0, "named", 0.0))
    found, doubted = outcome(human, noisy, student, low)
    assert found == [
        ("human", "region", "phrase", "cup", (0, 0, 20, 20)),
        ("kept", "region", "phrase", "saucer", (0, 0, 20, 21)),
    ]
    assert not doubted


def test_what_people_hang_something_on_is_theirs():
    noisy = table("noisy", [region("cup", 0, 0, 20, 20)])
    said = Annotation("region", "a red cup", "brief", noisy["annotation_id"][0].as_py(), box=(0, 0, 20, 20))
    human = table("human", [said])
    found, doubted = outcome(noisy, human, likelihoods((noisy, 0, "named", 0.0)))
    assert [row[0] for row in found] == ["human", "human"] and not doubted


def test_a_mask_comes_along_unless_the_box_has_moved_far_or_has_a_mask_of_its_own():
    def sides(student_box: tuple[float, ...]) -> tuple[pa.Table, pa.Table]:
        tables = []
        for source, box, mask in (("noisy", (0, 0, 20, 20), MASKS[0]), ("student", student_box, MASKS[1])):
            cup = region("cup", *box, score=1.0)
            tables.append(table(source, [cup, Annotation("region", parent=cup, box=box, mask=mask)]))
        return tables[0], tables[1]

    def masks(*tables: pa.Table) -> list[str]:
        said, *_ = parts(merged(pa.concat_tables(tables)))
        return [row["mask"]["counts"] for row in said if row["mask"] is not None]

    noisy, student = sides((0, 0, 20, 22))
    assert masks(noisy, student) == [MASKS[0]["counts"]]
    noisy, student = sides((0, 0, 20, 36))
    assert masks(noisy, student, likelihoods((noisy, 0, "located", 0.01))) == [MASKS[1]["counts"]]
    assert masks(noisy, student.slice(0, 1), likelihoods((noisy, 0, "located", 0.01))) == [MASKS[0]["counts"]]
    noisy, student = sides((0, 0, 20, 44))
    assert masks(noisy, student.slice(0, 1), likelihoods((noisy, 0, "located", 0.01))) == []


def test_a_line_of_text_keeps_a_quadrangle_with_its_box():
    quad = (0, 0, 20, 0, 20, 10, 0, 10)
    noisy = table("noisy", [region("STOP", 0, 0, 20, 10, granularity="ocr", quad=quad)])
    other = (0, 0, 20, 0, 20, 12, 0, 12)
    student = table("student", [region("Stop", 0, 0, 20, 12, granularity="ocr", quad=other, score=1.0)])
    (row,), *_ = parts(merged(pa.concat_tables([noisy, student])))
    assert tuple(row["quad"]) == quad and tuple(row["box"]) == (0, 0, 20, 10)


def text(words: str, granularity: str = "brief", score: float | None = None) -> Annotation:
    return Annotation("text", words, granularity, score=score)


@pytest.mark.parametrize(
    ("told", "scored", "wins"),
    [
        (None, None, False),
        (0.2, None, True),
        (0.5, None, False),
        (None, (0.3, 0.4), True),
        (None, (0.4, 0.3), False),
        (0.2, (0.4, 0.3), False),
        (0.5, (0.3, 0.4), False),
        (0.2, (0.3, 0.3), True),
        (0.2, (0.3, 0.4), True),
    ],
)
def test_the_students_text_is_chosen_where_no_judge_is_for_the_original(told, scored, wins):
    noisy, student = table("noisy", [text("a red star")]), table("student", [text("a blue star", score=0.8)])
    tables = [noisy, student]
    if told is not None:
        tables.append(likelihoods((noisy, 0, "told", told)))
    if scored is not None:
        ids = [t["annotation_id"][0].as_py() for t in (noisy, student)]
        tables.append(
            table(
                "scorer",
                [Annotation("text", None, "brief", i, score=s) for i, s in zip(ids, scored, strict=True)],
            )
        )
    found, doubted = outcome(*tables, scorer="scorer")
    expected = ("chosen", "a blue star") if wins else ("kept", "a red star")
    assert [(row[0], row[3]) for row in found] == [expected] and not doubted


def test_a_text_is_held_against_the_students_own_where_that_was_judged_too():
    noisy, student = table("noisy", [text("a red star")]), table("student", [text("a blue star")])
    for own, wins in ((0.9, False), (1.0, True)):
        doubt = likelihoods((noisy, 0, "told", 0.48), (student, 0, "told", own))
        found, _ = outcome(noisy, student, doubt)
        assert [row[0] for row in found] == ["chosen" if wins else "kept"]


def test_texts_that_say_the_same_agree_and_new_granularities_are_added():
    noisy = table("noisy", [text("A red  star."), text("star", "class")])
    student = table(
        "student", [text("a red star.", score=0.9), text("a red star on blue.", "detailed", score=0.9)]
    )
    found, _ = outcome(noisy, student)
    assert [(row[0], row[3]) for row in found] == [
        ("added", "a red star on blue."),
        ("agreed", "A red  star."),
        ("kept", "star"),
    ]


def test_links_of_one_phrase_agree_move_and_are_added():
    said = text("a red star and a cup and a key")
    noisy = table(
        "noisy", [said, link(said, "a red star", 0, 0, 20, 20), link(said, "a cup", 30, 30, 40, 40)]
    )
    parent = noisy["annotation_id"][0].as_py()

    def grounded(words: str, *box: float, score: float) -> Annotation:
        start = (said.text or "").index(words)
        return Annotation("phrase", words, None, parent, (start, start + len(words)), box, score=score)

    student = table(
        "student",
        [
            grounded("red star", 0, 0, 20, 24, score=1.0),  # the same phrase but for its article
            grounded("a cup", 0, 30, 10, 40, score=0.2),
            grounded("a key", 40, 0, 50, 10, score=0.9),
        ],
    )
    found, doubted = outcome(noisy, student, likelihoods((noisy, 2, "located", 0.05)))
    assert [row for row in found if row[1] == "phrase"] == [
        ("added", "phrase", None, "a key", (40, 0, 50, 10)),
        ("agreed", "phrase", None, "a red star", (0, 0, 20, 22)),
        ("moved", "phrase", None, "a cup", (0, 30, 10, 40)),
    ]
    assert not doubted
    found, _ = outcome(noisy, student)
    assert ("kept", "phrase", None, "a cup", (30, 30, 40, 40)) in found


def test_phrases_go_with_a_text_that_was_chosen_where_its_words_are_there():
    said = text("a red star and a cup")
    noisy = table(
        "noisy", [said, link(said, "a red star", 0, 0, 20, 20), link(said, "a cup", 30, 30, 40, 40)]
    )
    other = text("there is a cup and a blue star", score=0.8)
    student = table("student", [other])
    said_rows, _, reasons, doubted = parts(
        merged(pa.concat_tables([noisy, student, likelihoods((noisy, 0, "told", 0.1))]))
    )
    found = [(reasons[r["annotation_id"]], r["text"], r["span"]) for r in said_rows]
    assert sorted(found, key=str) == [
        ("chosen", "there is a cup and a blue star", None),
        ("kept", "a cup", [9, 14]),
    ]
    assert doubted == [noisy["annotation_id"][1].as_py()]


def test_a_mended_text_stands_before_one_written_anew_and_keeps_the_boxes_of_its_phrases():
    said = text("a red star and a cup")
    noisy = table(
        "noisy", [said, link(said, "a red star", 0, 0, 20, 20), link(said, "a cup", 30, 30, 40, 40)]
    )
    own = table("student", [text("two keys", score=0.9)])
    sides = {"student": ["student", "mended"], "mended": "mended"}

    def outcome_at(score: float, **args: Any) -> list[tuple[Any, ...]]:
        mended = table("mended", [text("a blue star and a cup", score=score)])
        rows = pa.concat_tables([noisy, own, mended, likelihoods((noisy, 0, "told", 0.3))])
        answer = merged(rows, **sides, **args)
        statements, _, reasons, _ = parts(answer)
        return sorted((reasons[r["annotation_id"]], r["text"], r["span"]) for r in statements)

    assert outcome_at(0.999) == [
        ("kept", "a blue star", [0, 11]),
        ("kept", "a cup", [16, 21]),
        ("mended", "a blue star and a cup", None),
    ]
    # Not below the threshold of mended texts, and not below that of new ones.
    assert ("kept", "a red star and a cup", None) in outcome_at(0.99, replace_below=0.2)
    assert ("mended", "a blue star and a cup", None) in outcome_at(0.9, mend_below=0.2, replace_below=0.2)
    assert ("chosen", "two keys", None) in outcome_at(0.9, replace_below=0.4)


def test_of_two_mended_texts_each_original_has_the_one_that_is_nearer():
    noisy = table("noisy", [text("a red star and a cup"), text("a green house under two trees")])
    wordings = ("a blue star and a cup", "a green house under three trees")
    mended = table("mended", [text(words, score=0.999) for words in wordings])
    answer = merged(pa.concat_tables([noisy, mended]), student=["mended"], mended="mended")
    _, members, _, _ = parts(answer)
    texts = dict(zip(noisy["annotation_id"].to_pylist(), noisy["text"].to_pylist(), strict=True))
    own = dict(zip(mended["annotation_id"].to_pylist(), mended["text"].to_pylist(), strict=True))
    pairs = {
        frozenset([*(texts[m] for m in some if m in texts), *(own[m] for m in some if m in own)])
        for some in members.values()
    }
    assert pairs == {
        frozenset({"a red star and a cup", "a blue star and a cup"}),
        frozenset({"a green house under two trees", "a green house under three trees"}),
    }


def test_very_many_boxes_are_held_against_each_other_in_bounded_numbers():
    boxes = [(x, y, x + 1.5, y + 1.5) for x in range(40) for y in range(40)]
    noisy = table("noisy", [region("cup", *b) for b in boxes])
    student = table("student", [region("cup", *b, score=0.5 + i / 4000) for i, b in enumerate(boxes)])
    said = pa.concat_tables([noisy, student])
    answer = Merge(["noisy"], "student", max_boxes=100)([IMAGE], said)[0]
    (left_out,) = (row for row in answer if isinstance(row, ImageError))
    assert left_out.reason == "too_many" and "1,500" in str(left_out)
    rows = [row for row in answer if isinstance(row, Annotation) and row.box is not None]
    # None of the originals is lost for it.
    assert {tuple(row.box or ()) for row in rows} >= set(boxes)


@pytest.mark.slow
def test_ten_thousand_boxes_of_both_sides_are_merged():
    boxes = [(x / 4, y / 4, x / 4 + 3, y / 4 + 3) for x in range(100) for y in range(100)]
    noisy = table("noisy", [region("cup", *b) for b in boxes])
    student = table("student", [region("cup", *b, score=0.5) for b in boxes])
    answer = Merge(["noisy"], "student")([IMAGE], pa.concat_tables([noisy, student]))[0]
    assert sum(isinstance(row, Annotation) and row.box is not None for row in answer) >= 10_000


def test_what_the_student_found_for_the_same_words_in_its_own_text_serves():
    said = text("a red star and a cup and a small blue key", "detailed")
    noisy = table("noisy", [said, link(said, "a red star", 0, 0, 20, 20)])
    own = text("the red star, a cup, blue key", score=0.8)
    links = [("the red star", (0, 0, 20, 24)), ("a cup", (40, 0, 50, 10)), ("blue key", (40, 40, 50, 50))]
    student = table("student", [own, *(link(own, words, *b, score=1.0) for words, b in links)])
    rows, *_ = parts(merged(pa.concat_tables([noisy, student])))
    texts = {row["annotation_id"]: row["granularity"] for row in rows}
    found = {(r["text"], tuple(r["box"])) for r in rows if texts.get(r["parent_id"]) == "detailed"}
    # "blue key" has no article, and the text may mean another by "a small blue key".
    assert found == {("a cup", (40, 0, 50, 10)), ("a red star", (0, 0, 20, 22))}


def test_where_the_student_was_shown_places_what_it_lists_counts_elsewhere_and_where_it_is_sure():
    noisy = table("noisy", [region("cup", 0, 0, 20, 20)])
    listed = table(
        "student",
        [
            region("cup", 4, 4, 24, 24, score=0.9),  # another place for the same cup
            region("key", 40, 0, 60, 20, score=0.9),  # another name at a place that it was shown
            region("bell", 0, 42, 20, 62, score=0.85),
            region("lamp", 40, 40, 60, 60, score=0.7),
        ],
    )
    shown = table(
        "pointed", [region("cup", 0, 0, 20, 22, score=0.6), region("star", 40, 0, 60, 20, score=0.6)]
    )
    sides = {"student": ["student", "pointed"], "pointed": "pointed"}
    found, _ = outcome(noisy, listed, shown, **sides)
    assert [(reason, name) for reason, _, _, name, _ in found] == [
        ("added", "bell"),
        ("added", "star"),
        ("agreed", "cup"),
    ]
    found, _ = outcome(noisy, listed, shown, **sides, list_above=0.6)
    assert ("added", "lamp") in [(reason, name) for reason, _, _, name, _ in found]
    # Without such places all of it counts.
    found, _ = outcome(noisy, listed, student=["student", "pointed"], pointed="pointed")
    assert {name for _, _, _, name, _ in found} == {"cup", "key", "bell", "lamp"}
    with pytest.raises(RecipeError, match="list_above"):
        Merge(["noisy"], "student", list_above=2)


def test_a_phrase_is_at_the_one_place_of_it_that_the_student_was_shown():
    said = text("a red star and two cups")
    noisy = table(
        "noisy",
        [
            said,
            link(said, "a red star", 30, 30, 40, 40),
            link(said, "two cups", 0, 30, 10, 40),
            link(said, "two cups", 0, 50, 10, 60),
        ],
    )
    parent = noisy["annotation_id"][0].as_py()

    def found(words: str, *box: float, score: float) -> Annotation:
        start = (said.text or "").index(words)
        return Annotation("phrase", words, None, parent, (start, start + len(words)), box, score=score)

    shown = [
        found("a red star", 0, 0, 20, 20, score=0.9),
        found("two cups", 0, 30, 10, 41, score=0.9),
        found("two cups", 50, 50, 60, 60, score=0.9),
    ]
    grounded = table("grounded", [found("a red star", 44, 0, 60, 20, score=0.95)])
    sides = {"student": ["pointed", "grounded"], "pointed": "pointed"}

    def phrases(located: float | None) -> list[tuple[Any, ...]]:
        doubt = [] if located is None else [likelihoods((noisy, 1, "located", located))]
        rows, _ = outcome(noisy, table("pointed", shown), grounded, *doubt, **sides)
        return sorted((reason, words, box) for reason, kind, _, words, box in rows if kind == "phrase")

    cups = [
        ("added", "two cups", (50, 50, 60, 60)),
        ("agreed", "two cups", (0, 30, 10, 40.47)),
        ("kept", "two cups", (0, 50, 10, 60)),
    ]
    assert phrases(0.1) == [*cups, ("moved", "a red star", (0, 0, 20, 20))]
    assert phrases(0.9) == sorted([*cups, ("kept", "a red star", (30, 30, 40, 40))])
    # Where nobody says how likely the original's place is, both may be right.
    both = [("added", "a red star", (0, 0, 20, 20)), ("kept", "a red star", (30, 30, 40, 40))]
    assert phrases(None) == sorted([*cups, *both])
