"""Noun chunks of regions' captions, and the phrases that name nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.blacklist import names_nothing
from data_engine.errors import MissingPackageError, SpecialistError
from data_engine.image import Image
from specialists import noun_chunks as module
from specialists import noun_phrases as phrases_module
from specialists.noun_chunks import NounChunks

BOX = (1, 2, 30, 40)
OTHER = (5, 5, 9, 9)


def picture(letter: str) -> Image:
    return Image(letter * 32, np.zeros((50, 50, 3), np.uint8))


def said(*by_image: tuple[Image, list[Annotation]], source: str = "captions") -> pa.Table:
    rows = AnnotationRows(source)
    for image, statements in by_image:
        assert rows.add(image.image_id, statements) == []
    return rows.table()


def region(word: str | None, *captions: str, box=BOX) -> list[Annotation]:
    own = Annotation("region", word, "phrase", box=box)
    return [own, *(Annotation("region", caption, "brief", own, box=box) for caption in captions)]


A, B = picture("a"), picture("b")


def test_chunks_are_siblings_of_the_caption_with_the_same_box() -> None:
    table = said((A, region("dog", "a brown dog on a red sofa")))
    made = NounChunks()([A], table)
    assert [(m.kind, m.text, m.granularity, m.box) for m in made[0]] == [
        ("region", "a brown dog", "noun_chunk", BOX),
        ("region", "a red sofa", "noun_chunk", BOX),
    ]
    dog, caption = table.to_pylist()
    assert {m.parent for m in made[0]} == {dog["annotation_id"]} == {caption["parent_id"]}
    assert AnnotationRows("chunks").add(A.image_id, made[0]) == []


def test_a_caption_that_is_a_region_itself_is_its_chunks_parent() -> None:
    table = said((A, [Annotation("region", "a man holds a kite", "brief", box=BOX)]))
    (made,) = NounChunks()([A], table)
    assert [m.text for m in made] == ["a man", "a kite"]
    assert {m.parent for m in made} == {table["annotation_id"][0].as_py()}


def test_pronouns_and_words_about_the_picture_are_left_out() -> None:
    table = said(
        (A, region("cat", "A close-up of a cat in the image, it looks at someone in front of the door."))
    )
    assert [m.text for m in NounChunks()([A], table)[0]] == ["a cat", "the door"]


def test_nothing_is_said_that_a_text_of_the_region_says_already() -> None:
    table = said(
        (
            A,
            [
                *region("A Cup", "a cup on a table", "a small  cup.", "a table and a cup"),
                *region("spoon", "a cup on a table", box=OTHER),
            ],
        )
    )
    (made,) = NounChunks()([A], table)
    assert [(m.text, m.box) for m in made] == [("a table", BOX), ("a cup", OTHER), ("a table", OTHER)]


def test_only_captions_of_regions_have_chunks() -> None:
    own = Annotation("region", "a cat and a dog", "phrase", box=BOX)
    text = Annotation("text", "a cat and a dog", "brief")
    table = said(
        (
            A,
            [
                own,
                text,
                Annotation("phrase", "a cat and a dog", parent=text, span=(0, 15), box=BOX),
                Annotation("region", "a cat and a dog", "ocr", box=BOX),
                Annotation("region", None, "brief", own, score=0.5),
                Annotation("region", None, "brief", own, box=BOX),
            ],
        )
    )
    assert NounChunks()([A], table) == [[]]


def test_sources_choose_whose_captions() -> None:
    table = pa.concat_tables(
        [
            said((A, region("dog", "a dog and a cat"))),
            said((A, region("dog", "a cup and a hat")), source="other"),
        ]
    )
    assert [m.text for m in NounChunks(sources=["other"])([A], table)[0]] == ["a cup", "a hat"]


def test_each_text_is_parsed_once_and_an_images_chunks_do_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = said(
        (A, region("dog", "a dog near a tree", "two men")), (B, region("dog", "a dog near a tree", box=OTHER))
    )
    chunks = NounChunks()
    parsed: list[str] = []
    real = module.noun_phrases

    def counted(texts):
        parsed.extend(texts)
        return real(texts)

    monkeypatch.setattr(module, "noun_phrases", counted)
    together = chunks([A, B], table)
    assert parsed == ["a dog near a tree", "two men"]
    for image, one in zip((A, B), together, strict=True):
        alone = chunks([image], table.filter(pa.compute.equal(table["image_id"], image.image_id)))[0]
        assert [(m.text, m.parent, m.box) for m in alone] == [(m.text, m.parent, m.box) for m in one]
    assert chunks([picture("c")], table) == [[]]


def test_without_captions_or_a_parser_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecialistError, match="none were given"):
        NounChunks()([A], None)
    monkeypatch.setattr(phrases_module, "PARSERS", ("no_such_parser",))
    phrases_module.parser.cache_clear()
    try:
        with pytest.raises(MissingPackageError, match="no_such_parser"):
            NounChunks()
    finally:
        phrases_module.parser.cache_clear()


@pytest.mark.parametrize(
    "phrase",
    ["it", "The Image", "a photo", "these", "someone", "lots", "a group", "other objects", "the left side",
     "A close-up", "a close up", "all", "the", "", "their", "“the picture”", "the way"],
)  # fmt: skip
def test_phrases_that_name_nothing(phrase: str) -> None:
    assert names_nothing(phrase)


@pytest.mark.parametrize(
    "phrase",
    ["a dog", "a white background", "the photographer", "a group of men", "one dog", "its tail", "IT staff"],
)
def test_phrases_that_name_things(phrase: str) -> None:
    assert not names_nothing(phrase)


@given(st.text(max_size=20), st.sampled_from(["the", "A", "this", "THEIR"]))
def test_a_determiner_or_capitals_change_nothing(phrase: str, determiner: str) -> None:
    if phrase[:1].isalpha():
        assert names_nothing(f"{determiner} {phrase}") == names_nothing(phrase)
    if phrase.isascii():
        assert names_nothing(phrase.upper()) == names_nothing(phrase)
