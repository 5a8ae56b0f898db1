"""Filters of texts: what they are made of, loops, boilerplate, personal data, what is written in the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("spacy")

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.blacklist import names_nothing, plain_phrase
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.recipe import FilterPart, Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import make_scene
from filters.boilerplate import Boilerplate
from filters.common_text import CommonText
from filters.elements import MinimumComplexity, MostObjects
from filters.personal_data import PersonalData
from filters.read_text import ReadText
from filters.repetition import Repetition, repeated
from filters.similarity import MinimumSimilarity
from filters.text_length import TextLength
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from specialists.noun_phrases import parser
from specialists.text_elements import TextElements
from tests.toy_sources import write_pictures

CAPTIONS = [
    "A small red cup stands on the table.",
    "a dog",
    "Two tennis rackets and a parked car in New York City.",
    "A woman rides a horse. A man in a blue shirt watches them.",
    "Wow!",
    "🐕 כלב על הספה",
    "",
]


def table(*said: Annotation, source: str = "s", image: str = "i") -> pa.Table:
    rows = AnnotationRows(source)
    assert rows.add(image * 32, said) == []
    return rows.table()


def texts(*said: str) -> pa.Table:
    """Rows of one text each, word for word: not every text is one that a specialist could say."""
    made = table(*(Annotation("text", f"{number}", "brief") for number in range(len(said))))
    return made.set_column(made.column_names.index("text"), "text", pa.array(said, pa.string()))


def taken_apart(said: pa.Table) -> pa.Table:
    """The rows with those that `TextElements` adds."""
    images = [Image(i, None) for i in dict.fromkeys(said["image_id"].to_pylist())]  # type: ignore[arg-type]
    rows = AnnotationRows("elements")
    for image, found in zip(images, TextElements()(images, said), strict=True):
        assert rows.add(image.image_id, found) == []
    return pa.concat_tables([said, rows.table()])


def parts_of(text: str) -> dict:
    found = taken_apart(texts(text))
    return json.loads(found["text"][1].as_py())


def test_a_sentence_is_taken_apart():
    cup = parts_of(CAPTIONS[0])
    assert (cup["objects"], cup["attributes"], cup["actions"], cup["names"]) == (
        ["cup", "table"], ["small", "red"], ["stands"], [],
    )  # fmt: skip
    city = parts_of(CAPTIONS[2])
    assert city["names"] == ["New York City"]
    assert city["attributes"] == ["two", "tennis", "parked"] and city["objects"] == ["rackets", "car"]
    assert parts_of(CAPTIONS[3])["sentences"] == 2
    assert parts_of("a dog") == {
        "objects": ["dog"], "names": [], "attributes": [], "actions": [],
        "object_complexity": 1, "action_complexity": 0, "tokens": 2, "sentences": 1,
    }  # fmt: skip


@given(st.lists(st.sampled_from([*CAPTIONS, "The very old man and his dogs slept."]), min_size=1, max_size=3))
@settings(max_examples=20)
def test_complexity_is_the_largest_degree_in_the_tree_walked_plainly(said):
    text = " ".join(said).strip() or "."
    edges = [(t.i, t.head.i) for t in parser()(text) if t.i != t.head.i]
    degree = lambda t: sum(t.i in edge for edge in edges)  # noqa: E731
    document = parser()(text)
    objects = [degree(t) for t in document if t.pos_ == "NOUN" and t.dep_ != "compound"]
    actions = [degree(t) for t in document if t.pos_ == "VERB" and t.dep_ != "amod"]
    found = parts_of(text)
    assert found["object_complexity"] == max(objects, default=0)
    assert found["action_complexity"] == max(actions, default=0)
    assert (len(found["objects"]), len(found["actions"])) == (len(objects), len(actions))


def test_a_text_is_parsed_once_and_as_if_it_were_alone(monkeypatch):
    from specialists import text_elements

    seen = []
    plain = text_elements.elements
    monkeypatch.setattr(text_elements, "elements", lambda d: (seen.append(d.text), plain(d))[1])
    said = pa.concat_tables(
        [
            table(Annotation("text", t, "brief"), Annotation("text", t, "detailed"), image=i)
            for i in "ijk"
            for t in (CAPTIONS[0], CAPTIONS[3])
        ]
    )
    specialist = TextElements()
    images = [Image(i * 32, None) for i in "ijk"]  # type: ignore[arg-type]
    first = specialist(images, said)
    again = specialist(images[:1], said)
    assert sorted(seen) == sorted([CAPTIONS[0], CAPTIONS[3]])
    assert (
        [a.text for a in first[0]]
        == [a.text for a in again[0]]
        == [
            json.dumps(plain(parser()(t)), ensure_ascii=False)
            for t in (CAPTIONS[0],) * 2 + (CAPTIONS[3],) * 2
        ]
    )
    assert specialist([Image("z" * 32, None)], said) == [[]]  # type: ignore[arg-type]


def test_what_is_not_a_caption_or_too_long_is_not_taken_apart():
    said = table(
        Annotation("text", "OPEN", "ocr"),
        Annotation("text", "a dog " * 40, "brief"),
        Annotation("region", "a dog", "brief", box=(0, 0, 5, 5)),
    )
    assert TextElements(longest=100)([Image("i" * 32, None)], said) == [[]]  # type: ignore[arg-type]
    with pytest.raises(SpecialistError, match="no texts"):
        TextElements()([], None)
    with pytest.raises(RecipeError):
        TextElements(granularities="brief")  # type: ignore[arg-type]


def test_texts_are_dropped_by_their_parts():
    said = taken_apart(texts("a dog", CAPTIONS[0], "a cup and a dog and a ball and a star and a key"))
    rule = MostObjects(4)
    assert rule(said).to_pylist() == [True, True, False, True, True, True]
    assert rule.values(said).to_pylist()[:3] == [1, 2, 5]
    assert MinimumComplexity(2)(said).to_pylist()[:3] == [False, True, True]
    assert MinimumComplexity(0, 1)(said).to_pylist()[:3] == [False, True, False]
    assert MinimumComplexity(0, 0, 1)(said).to_pylist()[:3] == [False, True, False]
    assert MostObjects()(texts("a dog")).to_pylist() == [True]
    assert MostObjects()(texts().slice(0, 0)).to_pylist() == []


def test_words_lie_between_what_python_takes_for_white_space():
    odd = [
        chr(code) for code in (*range(0x300), *range(0x1680, 0x1690), *range(0x2000, 0x2100), 0x3000, 0xFEFF)
    ]
    said = ["", *(f"{c}a{c}{c}b{c}" for c in odd), *odd]
    assert TextLength().values(texts(*said)).to_pylist() == [len(text.split()) for text in said]


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("a dog and a dog and a dog and a dog and a dog", True),
        ("The cup is red. The cup is red. The cup is red. The cup is red.", True),
        ("ha ha ha ha ha ha", True),
        ("A man and a woman sit on a bench and look at a boat on a lake.", False),
        ("a dog", False),
        ("", False),
        ("כלב על הספה כלב על הספה כלב על הספה כלב על הספה", True),
    ],
)
def test_texts_that_go_round_in_circles_fall(text, loops):
    assert Repetition()(texts(text)).to_pylist() == [not loops]


@given(st.text(max_size=50), st.integers(1, 4))
def test_what_is_repeated_is_a_share_and_doubling_a_text_raises_it(text, words):
    share = repeated(text, words)
    assert 0 <= share < 1
    assert repeated(f"{text} {text}", words) >= min(share, 0.0)
    assert repeated("alpha beta gamma delta epsilon", words) == 0


def test_honest_long_captions_do_not_repeat_themselves():
    said = [
        a.text
        for i in range(40)
        for a in make_scene(3, i, (160, 120)).annotations
        if a.kind == "text" and a.granularity != "ocr"
    ]
    assert all(Repetition()(texts(*said)).to_pylist())
    assert all(Boilerplate()(texts(*said)).to_pylist())
    assert all(PersonalData()(texts(*said)).to_pylist())


@pytest.mark.parametrize(
    "text",
    ["IMG_2045.JPG", "photo.png", "DSC 0012", "image 3", "see http://a.example/x", "www.shop.example", "Visit shop.com today",
     "12 / 45 - 3", "...", "Stock photo of a dog", "© 2019 Jane", "All Rights Reserved.", "dog &amp; cat", "Image may contain: a dog"],
)  # fmt: skip
def test_what_describes_nothing_falls(text):
    rule = Boilerplate()
    assert rule(texts(text)).to_pylist() == [False]
    assert rule.values(texts(text)).to_pylist()[0] >= 1


@pytest.mark.parametrize(
    "text", CAPTIONS[:6] + ["A photo of three men.", "A dog, 3 years old", "The sign says OPEN 24 H."]
)
def test_descriptions_stay(text):
    assert Boilerplate()(texts(text)).to_pylist() == [True]
    assert PersonalData()(texts(text)).to_pylist() == [True]


def test_patterns_of_one_s_own():
    assert Boilerplate(["(?i)tripadvisor"], built_in=False)(
        texts("see TripAdvisor", "IMG_1.jpg")
    ).to_pylist() == [False, True]
    with pytest.raises(RecipeError, match="is none") as caught:
        Boilerplate(["(?<=a)b"])
    assert "RE2" in caught.value.hint
    with pytest.raises(RecipeError, match="one string"):
        Boilerplate("a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["write to jane.doe@mail.example.org", "jane [at] example.org", "call +49 30 1234567", "+1 (212) 555-0123", "(030) 123 4567",
     "212-555-0123", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"],
)  # fmt: skip
def test_data_by_which_a_person_can_be_reached_falls(text):
    assert PersonalData()(texts(text)).to_pylist() == [False]


@pytest.mark.parametrize(
    "text",
    [
        "a house built in 1920",
        "5-10 people",
        "1,200 kg",
        "size 40-42",
        "10:30",
        "a 3-1 win in 2014-2015",
        "@ the beach",
    ],
)
def test_numbers_are_not_personal(text):
    assert PersonalData()(texts(text)).to_pylist() == [True]


def test_a_caption_that_only_reads_the_sign_falls():
    sign = table(
        Annotation("region", "GRAND Hotel", "ocr", box=(0, 0, 9, 9)),
        Annotation("text", "Grand hotel", "brief"),
        Annotation("text", "a grand old building with a sign", "brief"),
        Annotation("text", "GRAND Hotel", "ocr"),
    )
    other = table(Annotation("text", "grand hotel", "brief"), image="j")
    rule = ReadText()
    assert rule(pa.concat_tables([sign, other])).to_pylist() == [True, False, True, True, True]
    values = rule.values(pa.concat_tables([sign, other])).to_pylist()
    assert values[1] == 1 and values[2] == pytest.approx(1 / 5) and values[4] is None


def test_a_text_that_many_images_have_falls_in_all_of_them(tmp_path: Path):
    write_pictures(tmp_path / "pictures", 25)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=10)
    dataset = Dataset.open(str(tmp_path / "ds"))
    parts = {
        name: SpecialistPart(use=f"tests.toy_specialists:{use}")
        for name, use in (("a", "Same"), ("b", "Numbers"))
    }
    annotate(
        dataset,
        Recipe(name="t", specialists=parts).check(),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    for most, dropped in ((24, 25), (25, 0)):
        part = FilterPart(use="filters.common_text:CommonText", args={"most": most}, where={"kind": "text"})
        summary = filter_dataset(dataset, Recipe(name="f", filters={"common": part}).check())
        assert summary.dropped["common"] == dropped
    assert CommonText(1)(texts("never counted")).to_pylist() == [True]


def test_a_scorer_s_scores_decide_and_what_it_did_not_judge_stays():
    rows = AnnotationRows("s")
    good, bad, crop = (
        Annotation("text", "a", "brief"),
        Annotation("text", "b", "brief"),
        Annotation("region", "c", "phrase", box=(0, 0, 5, 5)),
    )
    rows.add("i" * 32, [good, bad, crop, Annotation("text", "d", "brief")])
    ids = rows.table()["annotation_id"].to_pylist()
    scores = table(
        *(
            Annotation(kind, granularity=g, parent=parent, score=score)
            for kind, g, parent, score in (
                ("text", "brief", ids[0], 0.3),
                ("text", "brief", ids[1], 0.1),
                ("text", "brief", ids[1], 0.2),
                ("region", "phrase", ids[2], 0.2),
            )
        ),
        source="clip",
    )
    said = pa.concat_tables([rows.table(), scores])
    rule = MinimumSimilarity("clip", 0.28)
    assert rule(said).to_pylist()[:4] == [True, False, False, True]
    assert rule.values(said).to_pylist()[:4] == [
        pytest.approx(0.3),
        pytest.approx(0.2),
        pytest.approx(0.2),
        None,
    ]
    assert MinimumSimilarity("clip", 0.28, {"phrase": 0.15})(said).to_pylist()[2] is True
    assert MinimumSimilarity("blip", 0.28)(said).to_pylist() == [True] * len(said)


@pytest.mark.parametrize(
    "phrase", ["the images", "Someone", "LOTS", "its left side", "the ways", "these", "Activities", "!"]
)
def test_phrases_that_name_nothing(phrase):
    assert names_nothing(phrase)


@pytest.mark.parametrize("phrase", ["a glass", "the white background", "a bus", "dishes", "two men"])
def test_phrases_that_name_something(phrase):
    assert not names_nothing(phrase)


@given(st.text(max_size=30))
def test_a_plain_phrase_is_plain(phrase):
    assert plain_phrase(plain_phrase(phrase)) == plain_phrase(phrase)
