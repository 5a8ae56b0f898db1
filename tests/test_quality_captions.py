"""Quality of texts over data sets on disk, by what is true of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import DatasetError
from data_engine.quality.captions import Agreement, CaptionQuality, caption_quality, region_agreement
from tests.test_quality_detection import image_id, make_dataset

BOX = (10, 10, 60, 60)


def colours_are_there(text: str, descriptions: Sequence[str]) -> list[bool]:
    """A judge for whom the colours are the noun phrases."""
    there = {word for said in descriptions for word in said.split()}
    return [word in there for word in text.lower().split() if word in ("red", "blue", "green")]


def text(words: str, granularity: str = "brief") -> Annotation:
    return Annotation("text", words, granularity, score=0.5)


def thing(name: str, description: str) -> list[Annotation]:
    region = Annotation("region", name, "phrase", box=BOX)
    return [region, Annotation("region", description, "brief", parent=region, box=BOX)]


TRUTH = [
    [text("A red cup."), *thing("cup", "red cup"), *thing("dog", "blue dog")],
    [text("A green tree."), text("Green is the tree."), *thing("tree", "green tree")],
    [],
    [text("Nothing."), text("red red red", "detailed")],
    [text("A red cup."), *thing("cup", "red cup")],
]


def test_texts_are_judged_by_what_is_true_of_their_image(tmp_path: Path) -> None:
    said = [
        [text("a  RED cup.")],  # truth's own words, but for case and blanks
        [text("a green and a red tree"), text("a green green tree")],  # one wrong; right in other words
        [
            text("green"),
            text(" ", "ocr"),
            text("EXIT", "ocr"),
        ],  # nothing is known of the image, so nothing is true of it
        [text("what a picture"), text("red", "detailed"), Annotation("region", "red", "brief", box=BOX)],
        [],
    ]
    dataset = make_dataset(tmp_path, {"human": TRUTH, "captioner": said, "quiet": [[]] * 5}, 5)
    quality = caption_quality(dataset, "captioner", "human", colours_are_there)
    assert quality == CaptionQuality(
        true=2 / 5, telling=4 / 5, same=1 / 5, phrases_true=4 / 6, texts=5, phrases=6, told=3, images=4
    )
    own = caption_quality(dataset, "human", "human", colours_are_there)
    assert (own.same, own.phrases_true, own.telling, own.true) == (1, 1, 4 / 5, 4 / 5)
    detailed = caption_quality(dataset, "captioner", "human", colours_are_there, granularity="detailed")
    assert (detailed.texts, detailed.true, detailed.images) == (1, 0, 1)
    written = caption_quality(dataset, "captioner", "human", colours_are_there, granularity="ocr")
    assert (written.texts, written.same, written.images) == (2, 1 / 2, 0), (
        "truth has no writing, and one says so"
    )
    silent = caption_quality(dataset, "quiet", "human", colours_are_there)
    assert silent == CaptionQuality(0, 0, 0, 0, texts=0, phrases=0, told=0, images=4)
    with pytest.raises(DatasetError, match="no annotations by 'none'"):
        caption_quality(dataset, "none", "human", colours_are_there)


def region_id(number: int, name: str) -> str:
    rows = AnnotationRows("human")
    rows.add(image_id(number), thing(name, ""))
    return str(rows.table()["annotation_id"][0].as_py())


def test_texts_of_truths_regions_are_held_against_truths_own(tmp_path: Path) -> None:
    def about(number: int, name: str, words: str, granularity: str) -> Annotation:
        return Annotation("region", words, granularity, parent=region_id(number, name), box=BOX)

    said = [
        [about(0, "cup", "Cup", "phrase"), about(0, "cup", "a red  cup", "brief")],
        [about(1, "tree", "bush", "phrase"), about(1, "tree", "GREEN tree", "brief")],
        [Annotation("region", "cup", "phrase", box=BOX)],
        [],
        [about(4, "cup", "cup", "phrase"), about(4, "cup", "EXIT", "ocr")],
    ]
    dataset = make_dataset(tmp_path, {"human": TRUTH, "captioner": said}, 5)
    assert region_agreement(dataset, "captioner", "human", "phrase") == Agreement(2 / 3, 3)
    assert region_agreement(dataset, "captioner", "human", "brief") == Agreement(1 / 2, 2)
    assert region_agreement(dataset, "captioner", "human", "ocr") == Agreement(0, 0)
