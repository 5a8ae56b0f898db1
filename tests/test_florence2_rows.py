"""From parsed answers to rows: spans, masks, what belongs to whom, what is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from specialists.florence2.grammar import Found
from specialists.florence2.masks import encode
from specialists.florence2.model import Answer
from specialists.florence2.prompts import TASKS, chosen, prompt_text
from specialists.florence2.rows import rows
from specialists.florence2.spans import phrase_spans
from specialists.said import Statement

SIZE = (100, 80)
TEXT = "A man and a woman walk a dog past a dog  bed; the MAN smiles."


@pytest.mark.parametrize(
    ("phrases", "wanted"),
    [
        (["a man", "a woman", "a dog"], ["A man", "a woman", "a dog"]),
        (["man"], ["man"]),
        (["man", "man"], ["man", "MAN"]),
        (["man", "man", "man"], ["man", "MAN", "man"]),
        (["wom"], ["wom"]),
        (["a dog bed", "a dog"], ["a dog  bed", "a dog"]),
        (["a dog", "a dog", "dog bed"], ["a dog", "a dog", "dog  bed"]),
        (["a cat", "", " "], [None, None, None]),
    ],
)
def test_phrases_are_found_in_their_text(phrases: list[str], wanted: list[str | None]) -> None:
    spans = phrase_spans(TEXT, phrases)
    assert [None if s is None else TEXT[s[0] : s[1]] for s in spans] == wanted


def test_phrases_that_say_the_same_take_turns_and_words_are_whole_first() -> None:
    assert phrase_spans("a dog and a dog", ["a dog", "a dog"]) == [(0, 5), (10, 15)]
    assert phrase_spans("a woman and a man", ["man"]) == [(14, 17)]
    assert phrase_spans("x < y", [prompt_text("x < y")]) == [(0, 5)]


@settings(deadline=None)
@given(st.text(), st.lists(st.text(max_size=5), max_size=6))
def test_a_span_is_always_inside_the_text_and_says_the_phrase(text: str, phrases: list[str]) -> None:
    for phrase, span in zip(phrases, phrase_spans(text, phrases), strict=True):
        if span is not None:
            start, end = span
            assert 0 <= start < end <= len(text)
            # Word for word the same, but for what re.IGNORECASE holds alike.
            assert len(prompt_text(text[start:end]).split()) == len(prompt_text(phrase).split())


@settings(deadline=None)
@given(st.text(max_size=20), st.text(min_size=1, max_size=8), st.text(max_size=20))
def test_a_phrase_cut_from_the_text_is_found(before: str, phrase: str, after: str) -> None:
    if prompt_text(phrase):
        assert phrase_spans(before + phrase + after, [prompt_text(phrase)])[0] is not None


def ring(*points: float) -> np.ndarray:
    return np.array(points, np.float64).reshape(-1, 2)


# pycocotools' decode() still has NumPy 1's __array__.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_cover_the_polygons_and_nothing_is_no_mask() -> None:
    mask = encode([ring(10, 10, 30, 10, 30, 40, 10, 40), ring(50, 50, 60, 50, 60, 60, 50, 60)], SIZE)
    assert mask is not None
    assert mask["size"] == [80, 100]
    assert coco_mask.area(mask) == 20 * 30 + 100
    assert np.argwhere(coco_mask.decode(mask))[0].tolist() == [10, 10]
    assert encode([ring(1, 1, 2, 2, 3, 3)], SIZE) is None
    assert encode([], SIZE) is None


def answer(*probabilities: float) -> Answer:
    return Answer(
        list(range(len(probabilities))), np.log(np.array(probabilities, np.float32)), truncated=False
    )


def box(label: str, corners: tuple[float, ...], at: int = 0, label_at: int = 0) -> Found:
    return Found(label, (label_at,), "box", (ring(*corners),), tuple(range(at, at + 4)))


def statement(kind: str, text: str | None, corners: tuple[float, ...] | None, name: str, parent: str | None = None) -> Statement:  # fmt: skip
    return Statement(name, kind, None, text, corners, parent, False)  # type: ignore[arg-type]


def test_a_score_is_the_geometric_mean_of_the_label_and_of_the_coordinates() -> None:
    made = rows(
        TASKS["OD"],
        [box("dog", (1, 1, 9, 9), at=1), box("dog", (2, 2, 9, 9), at=5)],
        answer(0.01, 0.9, 0.8, 0.7, 0.6, *[0.5] * 4),
        SIZE,
    )
    label = 0.01
    first = math.prod((0.9, 0.8, 0.7, 0.6)) ** 0.25
    assert [row.score for row in made] == pytest.approx([(label * first) ** 0.5, (label * 0.5) ** 0.5])
    text = rows(TASKS["CAPTION"], [Found("a dog", (1, 2), "text")], answer(0.1, 0.4, 0.9), SIZE)
    assert text[0].score == pytest.approx(0.6)
    assert (text[0].kind, text[0].granularity, text[0].text) == ("text", "brief", "a dog")


def test_shapes_without_area_and_repetitions_are_left_out() -> None:
    sure = answer(*[0.9] * 4)
    found = [box("dog", corners) for corners in ((5, 5, 5, 9), (9, 9, 5, 5), (1, 1, 3, 3), (1, 1, 3, 3))]
    assert [row.box for row in rows(TASKS["OD"], found, sure, SIZE)] == [(1, 1, 3, 3)]


def test_a_grounded_phrase_is_a_row_per_box_and_is_written_as_in_its_text() -> None:
    parent = statement("text", "Two DOGS and a cat", None, "t")
    found = [
        box("two dogs", (1, 1, 5, 5)),
        box("two dogs", (6, 1, 9, 5)),
        box("a bird", (0, 0, 9, 9), label_at=7),
    ]
    made = rows(TASKS["CAPTION_TO_PHRASE_GROUNDING"], found, answer(*[0.9] * 8), SIZE, [parent])
    assert [(r.text, r.span, r.parent) for r in made] == [
        ("Two DOGS", (0, 8), "t"),
        ("Two DOGS", (0, 8), "t"),
        # Not in the text: kept, visibly without a span.
        ("a bird", None, "t"),
    ]  # fmt: skip


def test_a_phrase_said_twice_in_a_text_may_have_one_box_and_a_third_time_is_a_repetition() -> None:
    parent = statement("text", "a dog sees a dog", None, "t")
    found = [box("a dog", (1, 1, 5, 5), label_at=i) for i in range(3)]
    made = rows(TASKS["CAPTION_TO_PHRASE_GROUNDING"], found, answer(*[0.9] * 4), SIZE, [parent])
    assert [r.span for r in made] == [(0, 5), (11, 16)]


def test_each_polygon_goes_to_the_box_that_it_overlaps_most() -> None:
    left, right = (0.0, 0.0, 40.0, 40.0), (50.0, 0.0, 90.0, 40.0)
    about = [
        statement("phrase", "dogs", left, "p1", "t1"),
        statement("phrase", "dogs", right, "p2", "t1"),
        statement("phrase", "dogs", right, "p3", "t2"),
    ]
    found = Found(
        "", (), "polygons",
        (ring(55, 5, 80, 5, 80, 30), ring(5, 5, 30, 5, 30, 30)),
        tuple(range(12)),
    )  # fmt: skip
    made = rows(
        TASKS["REFERRING_EXPRESSION_SEGMENTATION"], [found], answer(*[0.5] * 6, *[0.8] * 6), SIZE, about
    )
    assert [(r.parent, r.box) for r in made] == [
        ("p1", (5, 5, 30, 30)),
        ("p2", (55, 5, 80, 30)),
        ("p3", (5, 5, 80, 30)),  # the only "dogs" of its text: all of it
    ]
    assert [r.score for r in made] == pytest.approx([0.8, 0.5, math.sqrt(0.4)])
    assert all(r.kind == "phrase" and r.text is None and r.mask for r in made)


def test_a_region_drawn_as_polygons_has_its_mask_after_it() -> None:
    found = Found("Dog", (0,), "polygons", (ring(5, 5, 30, 5, 30, 30),), tuple(range(1, 7)))
    region, mask = rows(TASKS["OPEN_VOCABULARY_DETECTION"], [found], answer(*[0.5] * 7), SIZE, label="dog")
    assert (region.kind, region.granularity, region.text, region.box) == (
        "region",
        "phrase",
        "dog",
        (5, 5, 30, 30),
    )
    assert mask.parent is region and mask.mask is not None and mask.text is None  # fmt: skip


def test_tasks_are_named_with_or_without_their_marker_and_misspellings_are_shown() -> None:
    from data_engine.errors import RecipeError

    assert [t.name for t in chosen(["<OD>", "CAPTION", "OD"])] == ["OD", "CAPTION"]
    with pytest.raises(RecipeError, match="did you mean 'OCR_WITH_REGION'"):
        chosen(["OCR_WITH_REGIONS"])
    with pytest.raises(RecipeError, match="list of tasks"):
        chosen("OD")  # type: ignore[arg-type]
