"""Grounding DINO on a toy checkpoint: what is asked, how phrases are scored, what becomes a row."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image as PILImage

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.entry_point import code_version, signature
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.schema import ANNOTATIONS
from specialists.grounding_dino import GroundingDino
from specialists.noun_phrases import noun_phrases
from tests.toy_grounding_dino import checkpoint

TEXT = "A red ball lies near the old dog in St. Louis."
PHRASES = ["A red ball", "the old dog", "St. Louis"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.getbasetemp() / "grounding_dino"
    folder.mkdir(exist_ok=True)
    return str(checkpoint(folder))


@pytest.fixture(scope="module")
def everything(toy: str) -> GroundingDino:
    """With thresholds that every box passes."""
    return GroundingDino(toy, box_threshold=0, text_threshold=0, max_boxes_per_phrase=1000, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image]:
    draw = np.random.default_rng(0)
    sizes = [(60, 80), (60, 80), (50, 50)]
    made = [draw.integers(0, 255, (*s, 3), np.uint8) for s in sizes]
    for pixels in made:
        pixels.setflags(write=False)  # as decoded ones are
    return [Image(f"image-{i}", pixels) for i, pixels in enumerate(made)]


def said(*texts: tuple[str, str, str], source: str = "captions") -> pa.Table:
    rows = AnnotationRows(source)
    for image_id, text, granularity in texts:
        rows.add(image_id, [Annotation("text", text, granularity)])
    return rows.table()


def library(model: GroundingDino, image: Image, text: str) -> tuple[Any, Any]:
    """The library's own path: its processor's inputs, and the model's plain output."""
    inputs = model.tokenizer(text, return_tensors="pt")
    pixels = model.image_processor(PILImage.fromarray(image.pixels), return_tensors="pt")
    with torch.inference_mode():
        return inputs, model.network(**inputs, **pixels)


def test_one_row_per_phrase_and_box_hanging_on_its_text(
    everything: GroundingDino, images: list[Image]
) -> None:
    table = said(("image-0", TEXT, "brief"), ("image-2", "a man in a hat", "more_detailed"))
    first, none, third = everything(images, table)
    assert none == []
    assert list(dict.fromkeys(r.text for r in first)) == PHRASES
    for row in first:
        assert row.kind == "phrase" and row.granularity is None
        assert row.parent == table.column("annotation_id")[0].as_py()
        assert row.span is not None and TEXT[row.span[0] : row.span[1]] == row.text
        assert row.score is not None and 0 < row.score < 1
        assert row.box is not None
        x0, y0, x1, y1 = row.box
        assert 0 <= x0 < x1 <= 80 and 0 <= y0 < y1 <= 60
    scores = [[r.score for r in first if r.text == phrase] for phrase in PHRASES]
    assert all(one == sorted(one, reverse=True) for one in scores)
    assert {r.text for r in third} == {"a man", "a hat"}
    stored = AnnotationRows("dino")
    assert stored.add("image-0", first) == []


def test_a_phrases_score_is_the_mean_over_its_own_characters_tokens(
    everything: GroundingDino, images: list[Image]
) -> None:
    joined = "a red ball . the old dog . st louis ."
    inputs, output = library(everything, images[0], joined)
    probabilities = output.logits[0].sigmoid().numpy()
    rows = everything(images[:1], said(("image-0", TEXT, "brief")))[0]
    for phrase in PHRASES:
        words = phrase.lower().replace(".", "")
        start = joined.index(words)
        tokens = {inputs.char_to_token(i) for i in range(start, start + len(words)) if joined[i] != " "}
        wanted = np.sort(probabilities[:, sorted(tokens)].mean(axis=1))[::-1]
        assert [r.score for r in rows if r.text == phrase] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_boxes_and_their_threshold_are_the_librarys(toy: str, images: list[Image]) -> None:
    from transformers import GroundingDinoProcessor

    # One phrase of one token: our score is then that token's, and the library's the best of all tokens.
    probe = GroundingDino(toy, box_threshold=0, text_threshold=0, max_boxes_per_phrase=1000)
    inputs, output = library(probe, images[0], "dogs .")
    best = output.logits[0].sigmoid().max(dim=-1).values
    threshold = float(best.median())
    theirs = GroundingDinoProcessor.from_pretrained(toy)
    (wanted,) = theirs.post_process_grounded_object_detection(
        output, inputs["input_ids"], threshold=threshold, text_threshold=0.0, target_sizes=[(60, 80)]
    )
    strict = GroundingDino(toy, box_threshold=threshold, text_threshold=0, max_boxes_per_phrase=1000)
    rows = strict(images[:1], said(("image-0", "dogs", "brief")))[0]
    assert 0 < len(rows) < len(best)
    expected = wanted["boxes"].numpy().clip(0, [80, 60, 80, 60])
    assert np.sort([r.box for r in rows], axis=0) == pytest.approx(np.sort(expected, axis=0), abs=1e-3)


def test_thresholds_and_the_number_of_boxes_bound_what_is_said(toy: str, images: list[Image]) -> None:
    table = said(("image-0", TEXT, "brief"))
    loose = GroundingDino(toy, box_threshold=0, text_threshold=0, max_boxes_per_phrase=3)(images[:1], table)[
        0
    ]
    assert [sum(r.text == p for r in loose) for p in PHRASES] == [3, 3, 3]
    assert GroundingDino(toy, box_threshold=1, text_threshold=0)(images[:1], table) == [[]]
    assert GroundingDino(toy, box_threshold=0, text_threshold=1)(images[:1], table) == [[]]


def test_a_text_with_more_phrases_than_fit_is_asked_in_several_passes(
    everything: GroundingDino, images: list[Image]
) -> None:
    names = [
        f"a {color} {thing}{i}"
        for i in range(10)
        for color in ("red", "green", "old")
        for thing in ("dog", "cat", "hat")
    ]
    text = " and ".join(names) + "."
    (phrases,) = noun_phrases([text])
    wanted = {phrase for phrase, _, _ in phrases}
    (asked,) = [list(everything._passes(t)) for t in _texts_of(everything, images, text)]
    assert len(asked) > 1
    assert sorted(p for one in asked for p in one.phrases) == sorted(wanted)
    for one in asked:
        assert len(one.ids) <= 256
        assert one.ids[-2:] == [everything.stop, everything.tokenizer.sep_token_id]
        for phrase, tokens in zip(one.phrases, one.tokens, strict=True):
            spelled = everything.tokenizer.decode([one.ids[i] for i in tokens])
            assert spelled.replace(" ", "") == phrase.lower().replace(" ", "")
    rows = everything(images[:1], said(("image-0", text, "detailed")))[0]
    assert {r.text for r in rows} == wanted


def _texts_of(model: GroundingDino, images: list[Image], text: str) -> Any:
    from specialists.phrase_texts import phrase_texts
    from specialists.said import statements

    return phrase_texts(images[:1], statements(said(("image-0", text, "brief"))))


def test_a_phrase_alone_longer_than_the_model_is_cut_and_not_an_error(
    everything: GroundingDino, images: list[Image]
) -> None:
    text = "the " + "x" * 600 + " dog"
    assert all(len(p.ids) <= 256 for t in _texts_of(everything, images, text) for p in everything._passes(t))
    everything(images[:1], said(("image-0", text, "brief")))


def test_prompts_are_the_tokenizers_own_for_the_joined_phrases(
    everything: GroundingDino, images: list[Image]
) -> None:
    (asked,) = [p for t in _texts_of(everything, images, TEXT) for p in everything._passes(t)]
    assert asked.ids == everything.tokenizer("a red ball . the old dog . st louis .")["input_ids"]


def test_full_stops_and_special_tokens_in_a_phrase_split_nothing(
    everything: GroundingDino, images: list[Image]
) -> None:
    text = "Mr. Smith and the U.S. [SEP] street stand in [CLS] St. Louis?"
    for asked in (p for t in _texts_of(everything, images, text) for p in everything._passes(t)):
        inner = [i for tokens in asked.tokens for i in tokens]
        assert not {asked.ids[i] for i in inner} & everything.delimiters
        assert asked.ids.count(everything.stop) == len(asked.phrases)


def test_an_image_says_the_same_in_any_company(everything: GroundingDino, images: list[Image]) -> None:
    table = said(
        ("image-0", TEXT, "brief"),
        ("image-1", "three small cats and a man with a blue hat on the old street near the barn", "brief"),
        ("image-1", "a dog", "detailed"),
        ("image-2", "the city", "brief"),
    )
    together = everything(images, table)
    for i, image in enumerate(images):
        (alone,) = everything([image], table)
        assert [(r.text, r.span, r.parent) for r in alone] == [
            (r.text, r.span, r.parent) for r in together[i]
        ]
        assert [r.score for r in alone] == pytest.approx([r.score for r in together[i]], abs=1e-4)
    again = everything(images, table)
    assert [[(r.text, r.box, r.score) for r in rows] for rows in again] == [
        [(r.text, r.box, r.score) for r in rows] for rows in together
    ]


def test_a_wording_said_twice_is_asked_once_and_answered_for_both(
    everything: GroundingDino, images: list[Image]
) -> None:
    table = said(("image-0", "a dog", "brief"), ("image-0", "a dog", "detailed"))
    rows = everything(images[:1], table)[0]
    parents = table.column("annotation_id").to_pylist()
    assert [r.score for r in rows if r.parent == parents[0]] == [
        r.score for r in rows if r.parent == parents[1]
    ]
    assert len(_texts_of(everything, images, "a dog")) == 1


def test_nothing_to_ground_is_no_error(everything: GroundingDino, images: list[Image]) -> None:
    table = said(("image-0", "They wait.", "brief"), ("image-1", "", "brief"), ("image-2", "a dog", "ocr"))
    assert everything(images, table) == [[], [], []]
    assert everything(images, ANNOTATIONS.empty_table()) == [[], [], []]
    assert everything([], ANNOTATIONS.empty_table()) == []
    with pytest.raises(SpecialistError, match="texts") as caught:
        everything(images, None)
    assert "needs" in caught.value.hint


def test_sources_narrow_what_is_grounded(toy: str, images: list[Image]) -> None:
    table = pa.concat_tables(
        [said(("image-0", "a dog", "brief"), source=s) for s in ("alt_text", "captions")]
    )
    model = GroundingDino(toy, box_threshold=0, text_threshold=0, sources=["captions"])
    assert {r.parent for r in model(images[:1], table)[0]} == {table.column("annotation_id")[1].as_py()}


@pytest.mark.parametrize(
    "more", [{"box_threshold": 1.5}, {"text_threshold": -1}, {"max_boxes_per_phrase": 0}]
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        GroundingDino("/nowhere", **more)


def test_checkpoints_that_cannot_be_used_say_why_in_one_line(toy: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(toy, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "florence2"}))
    weightless = Path(shutil.copytree(toy, tmp_path / "weightless"))
    (weightless / "model.safetensors").unlink()
    for folder, says in (
        (other, "'florence2'"),
        (weightless, "model.safetensors"),
        (tmp_path / "none", "none"),
    ):
        with pytest.raises(ModelLoadError, match=says) as caught:
            GroundingDino(str(folder))
        assert "\n" not in caught.value.message and caught.value.hint


def test_a_recipe_can_name_it_without_importing_it() -> None:
    takes = signature("specialists.grounding_dino:GroundingDino")
    assert takes is not None and takes.required == () and "text_threshold" in takes.optional
    assert code_version("specialists.grounding_dino:GroundingDino").endswith("version 1")
