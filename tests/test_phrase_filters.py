"""Filters of triplets: phrases that name nothing, that claim each other's regions, and texts without any."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.blacklist import lemma, names_nothing
from data_engine.errors import RecipeError
from filters.blacklisted import Blacklisted
from filters.phrase_nms import PhraseNms
from filters.sane_box import SaneBox
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


claims = st.lists(
    st.tuples(
        st.sampled_from("ij"),  # image
        st.integers(0, 1),  # text
        st.sampled_from(["a dog", "the Dog", "a cat"]),
        st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(2, 8)] * 2),
        st.integers(1, 99),
    ),
    max_size=20,
    unique_by=lambda claim: claim[4],  # no two are equally sure
)


def claimed(found: list) -> tuple[pa.Table, list[tuple]]:
    """Phrases of two texts of each of two images, as rows; and each phrase's image, text, words, box, score."""
    images, told = [], []
    for image in "ij":
        texts = [Annotation("text", f"{image}{number}", "brief") for number in range(2)]
        rows = list(texts)
        for where, text, words, (x, y, w, h), score in found:
            if where == image:
                box = (float(x), float(y), float(x + w), float(y + h))
                rows.append(phrase(words, texts[text], box, score / 100))
                told.append((image, text, words, box, score / 100))
        images.append(rows)
    return said(*images), told


@given(claims, st.sampled_from([0.5, 0.75]))
def test_within_a_text_suppression_is_torchvision_s(found, threshold):
    torch = pytest.importorskip("torch")
    from torchvision.ops import nms

    table, told = claimed(found)
    kept = PhraseNms(threshold)(table).filter(pa.array([k == "phrase" for k in table["kind"].to_pylist()]))
    groups = defaultdict(list)
    for number, (image, text, *_) in enumerate(told):
        groups[image, text].append(number)
    expected = set()
    for rows in groups.values():
        boxes = torch.tensor([told[i][3] for i in rows])
        expected |= {
            rows[i] for i in nms(boxes, torch.tensor([told[i][4] for i in rows]), threshold).tolist()
        }
    assert {i for i, keep in enumerate(kept.to_pylist()) if keep} == expected


@given(claims)
def test_over_an_image_a_phrase_falls_to_a_surer_one_of_other_words_alone(found):
    table, told = claimed(found)
    kept = PhraseNms(0.5, across="image")(table).filter(
        pa.array([kind == "phrase" for kind in table["kind"].to_pylist()])
    )
    stays: list[int] = []
    for i in sorted(range(len(told)), key=lambda i: -told[i][4]):
        image, _, words, box, _ = told[i]
        rivals = [
            told[j]
            for j in stays
            if told[j][0] == image and told[j][2].casefold()[-3:] != words.casefold()[-3:]
        ]
        if not any(_iou(box, other[3]) > 0.5 for other in rivals):
            stays.append(i)
    assert {i for i, keep in enumerate(kept.to_pylist()) if keep} == set(stays)


def _iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@given(claims, st.integers(1, 3))
def test_a_text_stays_with_so_many_different_phrases(found, minimum):
    table, told = claimed(found)
    kept = Ungrounded(minimum)(table).to_pylist()
    for row, keep in zip(table.to_pylist(), kept, strict=True):
        if row["kind"] == "text":
            image, text = row["text"][0], int(row["text"][1])
            phrases = {words for where, of, words, *_ in told if (where, of) == (image, text)}
            grounded = any(where == image for where, *_ in told)
            assert keep == (len(phrases) >= minimum or not grounded)


def test_a_phrase_that_covers_the_whole_image_falls():
    text = Annotation("text", "a dog in a room", "brief")
    table = said(
        [text, phrase("a room", text, (0, 0, 100, 99), 0.9), phrase("a dog", text, (0, 0, 100, 90), 0.5)]
    )
    for name, value in (("image_width", 100), ("image_height", 100)):
        table = table.append_column(name, pa.array([value] * 3, pa.int32()))
    assert SaneBox(maximum_area=0.95)(table).to_pylist() == [True, False, True]


@pytest.mark.parametrize("article", ["", "the ", "These ", "SOME "])
def test_plurals_are_those_that_spacy_takes_for_the_same_word(article):
    spacy = pytest.importorskip("spacy")
    from specialists.noun_phrases import PARSERS

    nlp = spacy.load(next(name for name in PARSERS if spacy.util.is_package(name)))
    nouns = "image photo picture view scene group lot bunch part piece side corner edge way time activity idea style"
    things = "dog glass bus box dish city leaf watch tree house"
    for word, nothing in [(w, True) for w in nouns.split()] + [(w, False) for w in things.split()]:
        ending = "ies" if word.endswith("y") else "es" if word.endswith(("s", "x", "sh", "ch")) else "s"
        plural = (word[:-1] if word.endswith("y") else word) + ending
        assert nlp(f"I see two {plural}.")[3].lemma_ == word or word == "leaf"
        assert (
            names_nothing(f"{article}{plural.capitalize()}") == names_nothing(f"{article}{word}") == nothing
        )
        assert lemma(f"{article}{plural}") == lemma(word)


def test_a_user_s_words_are_known_in_singular_and_plural():
    text = Annotation("text", "it", "brief")
    table = said(
        [text, *(phrase(words, text, BOX, 0.5) for words in ("two", "The Logos", "a logo", "images"))]
    )
    for words in (["logo"], ["Logos"]):
        assert Blacklisted(words=words, but=["an image"])(table).to_pylist()[2:] == [False, False, True]
