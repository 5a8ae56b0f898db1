"""Filters of triplets: phrases that name nothing, that claim each other's regions, and texts without any."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import RecipeError
from filters.blacklisted import Blacklisted
from filters.phrase_nms import PhraseNms
from filters.ungrounded import Ungrounded


def said(*images: list[Annotation]) -> pa.Table:
    rows = AnnotationRows("s")
    for number, found in enumerate(images):
        assert rows.add(f"{number:032x}", found) == []
    return rows.table()


def phrase(text: str, parent: Annotation, box: tuple[float, ...], score: float) -> Annotation:
    return Annotation("phrase", text, parent=parent, span=(0, 1), box=box, score=score)


BOX, SAME, PART = (0, 0, 40, 40), (0, 0, 40, 39), (0, 0, 20, 20)


def test_of_phrases_that_claim_one_region_the_surest_stays():
    brief, long = Annotation("text", "a dog", "brief"), Annotation("text", "a dog with a tail", "detailed")
    table = said(
        [
            brief,
            long,
            phrase("a dog", brief, BOX, 0.6),
            phrase("a dog", long, BOX, 0.5),
            phrase("a tail", long, SAME, 0.4),
            phrase("a cat", brief, SAME, 0.7),
            kept := phrase("the head", long, PART, 0.3),
            Annotation("phrase", parent=kept, box=PART, mask={"size": [40, 40], "counts": "P2"}),
        ]
    )
    within = PhraseNms()(table).to_pylist()
    assert within == [True, True, False, True, False, True, True, True]
    # Over all texts "a cat" of the brief one wins against the dog of both; two mentions of a dog agree.
    over = PhraseNms(across="image")(table).to_pylist()
    assert over == [True, True, False, False, False, True, True, True]
    no_cat = table.filter(pa.array([True] * 5 + [False] + [True] * 2))
    assert PhraseNms(across="image")(no_cat).to_pylist() == [True, True, True, True, False, True, True]


def test_phrases_that_name_nothing_fall_but_those_asked_for():
    text = Annotation("text", "it", "brief")
    table = said(
        [text, *(phrase(words, text, BOX, 0.5) for words in ("The Image", "a dog", "The logo", "people"))]
    )
    assert Blacklisted()(table).to_pylist() == [False, False, True, True, True]
    assert Blacklisted(words=["logos", "a logo"], but=["image"])(table).to_pylist() == [
        False,
        True,
        True,
        False,
        True,
    ]


def test_a_text_without_a_phrase_falls_where_others_have_one():
    good, bad = Annotation("text", "a dog", "brief"), Annotation("text", "a cat", "detailed")
    table = said(
        [
            good,
            bad,
            phrase("a dog", good, BOX, 0.5),
            phrase("a dog", good, PART, 0.5),
            Annotation("text", "EXIT", "ocr"),
        ],
        [Annotation("text", "nobody looked", "brief")],
    )
    rule = Ungrounded()
    assert rule(table).to_pylist() == [True, False, True, True, True, True]
    assert rule.values(table).to_pylist() == [1, 0, None, None, None, 0]
    assert Ungrounded(strict=True)(table).to_pylist() == [True, False, True, True, True, False]
    assert Ungrounded(minimum=2)(table).to_pylist()[:2] == [False, False]


@pytest.mark.parametrize(
    "build",
    [
        lambda: PhraseNms(1.0),
        lambda: PhraseNms(across="world"),
        lambda: Ungrounded(0),
        lambda: Blacklisted("it"),
    ],
)
def test_settings_that_make_no_sense_are_refused(build):
    with pytest.raises(RecipeError) as caught:
        build()
    assert caught.value.hint
