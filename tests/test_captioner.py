"""Captions of images and regions, by toy checkpoints; the reference is the library, one picture at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.caption_model import CaptionModel
from specialists.captioner import Captioner
from specialists.region_captions import RegionCaptions
from specialists.scorer import crop_box
from tests import toy_blip

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TOKENS = 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_blip.blip(tmp_path_factory.mktemp("toys") / "blip"))


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_blip.git(tmp_path_factory.mktemp("toys") / "git"))


def picture(number: int, width: int = 60, height: int = 40) -> Image:
    """Few large patches of colour: noise would look alike to a network."""
    rng = np.random.default_rng(number)
    patches = rng.integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
    pixels = patches.repeat(10, axis=0).repeat(10, axis=1)[:height, :width]
    return Image(f"{number:032x}", np.ascontiguousarray(pixels))


IMAGES = [picture(1), picture(2, 30, 70), picture(3), picture(4, 50, 50), picture(5)]


def plain(folder: str, pixels: np.ndarray, prompt: str | None = None, num_beams: int = 3) -> str:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    text = {} if prompt is None else {"text": prompt}
    inputs = processor(images=pixels.copy(), return_tensors="pt", **text)
    with torch.no_grad():
        ids = network.generate(**inputs, num_beams=num_beams, max_new_tokens=TOKENS, do_sample=False)[0]
    # A prompt is [CLS] words [SEP]; the answer repeats it without the [SEP].
    start = 0 if prompt is None else inputs["input_ids"].shape[1] - 1
    return " ".join(processor.tokenizer.decode(ids[start:], skip_special_tokens=True).split())


@pytest.mark.parametrize("kind", ["blip", "git"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_captions_are_the_librarys_own_one_picture_at_a_time(
    kind: str, num_beams: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    captioner = Captioner(folder, num_beams=num_beams, max_new_tokens=TOKENS, max_batch=2)
    made = captioner(IMAGES, None)
    expected = [plain(folder, image.pixels, num_beams=num_beams) for image in IMAGES]
    assert [one[0].text for one in made] == expected
    assert len(set(expected)) > 1, "or the comparison would prove little"
    assert all(len(one) == 1 for one in made)
    assert [(a.kind, a.granularity, a.score) for one in made for a in one] == [("text", "brief", None)] * 5


def test_a_prompt_begins_the_caption_and_is_cut_off_it(blip: str) -> None:
    prompt = "A red  dog"
    captioner = Captioner(blip, prompt=prompt, granularity="detailed", max_new_tokens=TOKENS, max_batch=3)
    made = [one[0] for one in captioner(IMAGES, None)]
    assert [a.text for a in made] == [plain(blip, image.pixels, prompt) for image in IMAGES]
    assert made != [one[0] for one in Captioner(blip, max_new_tokens=TOKENS)(IMAGES, None)]
    assert {a.granularity for a in made} == {"detailed"}


def said(*by_image: tuple[Image, list[Annotation]]):
    rows = AnnotationRows("others")
    for image, statements in by_image:
        assert rows.add(image.image_id, statements) == []
    return rows.table()


DOG = Annotation("region", "dog", "phrase", box=(5.5, 3, 40, 30))
TEXT = Annotation("text", "a dog", "brief")
SAID = said(
    (
        IMAGES[0],
        [
            DOG,
            Annotation("region", "a dog", "noun_chunk", DOG, box=(5.5, 3, 40, 30)),
            Annotation("region", parent=DOG, box=(5.5, 3, 40, 30), mask={"size": [40, 60], "counts": "0i0"}),
            Annotation("region", "cat", "phrase", box=(5.5, 3, 40, 30)),
            Annotation("region", "STOP", "ocr", box=(5, 3, 40, 30)),
            TEXT,
            Annotation("phrase", "a dog", parent=TEXT, span=(0, 5), box=(1, 1, 9, 9)),
            Annotation("region", None, "proposal", box=(50, 20, 54, 23)),
        ],
    ),
    (IMAGES[1], [Annotation("region", "hat", "phrase", box=(0, 30, 30, 70))]),
)


def test_regions_are_captioned_by_their_crops_and_are_the_captions_parents(blip: str) -> None:
    captions = RegionCaptions(blip, max_new_tokens=TOKENS, max_batch=2, context=0.1, minimum_side=12)
    made = captions(IMAGES[:2], SAID)
    rows = SAID.to_pylist()
    for image, one, about in zip(IMAGES, made, ([0, 3, 7], [8]), strict=False):
        assert [a.parent for a in one] == [rows[i]["annotation_id"] for i in about]
        for a, i in zip(one, about, strict=True):
            x0, y0, x1, y1 = crop_box(rows[i]["box"], (image.width, image.height), 0.1, 12)
            assert a.text == plain(blip, image.pixels[y0:y1, x0:x1])
            assert (a.kind, a.granularity, a.score) == ("region", "brief", None)
            assert list(a.box) == rows[i]["box"]
        assert AnnotationRows("captions").add(image.image_id, one, (image.width, image.height)) == []


def test_equal_crops_are_captioned_once_and_crops_of_all_images_share_batches(
    blip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = RegionCaptions(blip, max_new_tokens=TOKENS, max_batch=2)
    together = captions(IMAGES[:2], SAID)
    seen: list[int] = []
    real = CaptionModel._part

    def counted(model: CaptionModel, pictures):
        seen.append(len(pictures))
        return real(model, pictures)

    monkeypatch.setattr(CaptionModel, "_part", counted)
    assert [[a.text for a in one] for one in captions(IMAGES[:2], SAID)] == [
        [a.text for a in one] for one in together
    ]
    assert seen == [2, 1], "three different crops in two images"
    alone = [captions([image], SAID)[0] for image in IMAGES[:2]]
    assert [[a.text for a in one] for one in alone] == [[a.text for a in one] for one in together]
    assert captions([IMAGES[2]], SAID) == [[]]


def test_sources_choose_whose_regions(blip: str) -> None:
    assert RegionCaptions(blip, sources=["nobody"])(IMAGES[:2], SAID) == [[], []]


def test_a_picture_a_few_pixels_large_has_a_caption(blip: str) -> None:
    tiny = [picture(6, 1, 1), picture(7, 3, 3), picture(8, 400, 3)]
    assert all(len(one) == 1 for one in Captioner(blip, max_new_tokens=TOKENS)(tiny, None))


def test_where_the_model_says_nothing_there_is_no_row(blip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CaptionModel, "captions", lambda self, pictures: ["" for _ in pictures])
    assert Captioner(blip)(IMAGES[:2], None) == [[], []]
    assert RegionCaptions(blip)(IMAGES[:2], SAID) == [[], []]


def test_what_cannot_be_is_refused(blip: str, git: str, tmp_path: Path) -> None:
    with pytest.raises(SpecialistError, match="none were given"):
        RegionCaptions(blip)(IMAGES[:1], None)
    for wrong in ({"num_beams": 0}, {"max_new_tokens": 0}, {"max_batch": 0}, {"granularity": "class"}):
        with pytest.raises(RecipeError):
            Captioner(blip, **wrong)
    for wrong in ({"context": -1.0}, {"minimum_side": 0}):
        with pytest.raises(RecipeError):
            RegionCaptions(blip, **wrong)
    with pytest.raises(RecipeError, match="without a prompt"):
        Captioner(git, prompt="a picture of")
    for kind, hint in (("florence2", "specialists.florence2"), ("bert", "BLIP"), ("no_such_kind", "BLIP")):
        (tmp_path / "config.json").write_text(
            json.dumps({"model_type": kind, "auto_map": {"AutoModelForImageTextToText": "evil.Model"}})
        )
        (tmp_path / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
        with pytest.raises(ModelLoadError) as caught:
            Captioner(str(tmp_path))
        assert hint in caught.value.hint


def test_code_and_pickles_beside_a_checkpoint_are_never_used(blip: str, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(blip, copy)
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "evil.Model", "AutoProcessor": "evil.Processor"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
    made = Captioner(str(copy), max_new_tokens=TOKENS)(IMAGES[:1], None)
    assert made[0][0].text == plain(blip, IMAGES[0].pixels)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelLoadError):
        Captioner(str(copy))
