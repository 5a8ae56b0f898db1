"""The scorer, with a small CLIP made and saved by open_clip itself; the reference is a plain loop over it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.scorer import Scorer, crop_box

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_clip(tmp_path_factory.mktemp("clip"))


def save_toy_clip(path: Path) -> Path:
    """A small CLIP with random weights, in the form that open_clip downloads."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.CLIP(**{**CONFIG, "vision_cfg": dict(CONFIG["vision_cfg"])})
    # As the library initialises them, all pictures and all texts would look alike.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, str(path / "open_clip_model.safetensors"))
    return path


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer(pretrained=str(folder), max_batch=3)


def picture(number: int, width: int = 60, height: int = 40) -> Image:
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    return Image(f"{number:032x}", pixels)


def rows_of(*by_image: tuple[Image, list[Annotation]]) -> AnnotationRows:
    rows = AnnotationRows("others")
    for image, statements in by_image:
        assert not rows.add(image.image_id, statements)
    return rows


TWO = (picture(1), picture(2, 30, 70))
TEXT = Annotation("text", "a cat on a mat", "brief")
SAID = rows_of(
    (
        TWO[0],
        [
            TEXT,
            Annotation("phrase", "a mat", parent=TEXT, span=(9, 14), box=(10, 10, 50.5, 38)),
            Annotation("region", "dog", "phrase", box=(0, 0, 30, 30)),
            Annotation("region", None, "proposal", box=(0, 0, 5, 5)),
        ],
    ),
    (TWO[1], [Annotation("region", "dog", "phrase", box=(3, 40, 9, 44)), Annotation("text", "", "brief")]),
).table()


def plain(folder: Path, image: Image, crop: tuple[int, int, int, int], text: str) -> float:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        seen = model.encode_image(preprocess(image.pil.crop(crop))[None], normalize=True)
        read = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")([text]), normalize=True)
    return max(0.0, float((seen @ read.T)[0, 0]))


def test_scores_equal_a_plain_loop_over_the_library_one_pair_at_a_time(scorer: Scorer, folder: Path) -> None:
    made = scorer(TWO, SAID)
    expected = [
        plain(folder, TWO[0], (0, 0, 60, 40), "a cat on a mat"),
        plain(folder, TWO[0], (10, 10, 51, 38), "a mat"),
        plain(folder, TWO[0], (0, 0, 30, 30), "dog"),
        plain(folder, TWO[1], crop_box((3, 40, 9, 44), (30, 70), 0.0, 16), "dog"),
    ]
    scores = [a.score for one in made for a in one]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert sum(0 < score < 0.999 for score in expected) >= 2, "or the comparison would prove little"


def test_a_score_names_the_statement_it_judges_and_repeats_its_kind(scorer: Scorer) -> None:
    rows = SAID.to_pylist()
    judged = [rows[0], rows[1], rows[2], rows[4]]
    made = [a for one in scorer(TWO, SAID) for a in one]
    assert [(a.kind, a.granularity, a.parent) for a in made] == [
        (r["kind"], r["granularity"], r["annotation_id"]) for r in judged
    ]
    assert all(a.text is None and a.box is None and 0 <= a.score <= 1 for a in made)
    assert not AnnotationRows("scorer").add(TWO[0].image_id, made)


def test_the_batch_size_and_the_other_images_change_no_score(scorer: Scorer, folder: Path) -> None:
    together = scorer(TWO, SAID)
    for one, image in zip(together, TWO, strict=True):
        alone = Scorer(pretrained=str(folder), max_batch=1)([image], SAID)[0]
        assert [a.score for a in alone] == pytest.approx([a.score for a in one], abs=1e-6)


def test_features_have_length_one_and_stand_in_the_order_asked(scorer: Scorer) -> None:
    # Four of each, in parts of three: a part's end is no end of the answer.
    places = [(i, (x, 0, x + 20, 20)) for x in (0, 9) for i in (0, 1)]
    crops = scorer.clip.image_features(TWO, places)
    texts = scorer.clip.text_features(["a", "dog", "a", "mat"])
    for found in (crops, texts):
        assert found.shape == (4, 32) and found.dtype == torch.float32
        assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(texts[0], texts[2], atol=1e-5) and not torch.allclose(texts[0], texts[1], atol=1e-2)
    assert torch.allclose(crops[3:], scorer.clip.image_features(TWO, places[3:]), atol=1e-5)


def test_only_statements_of_the_named_sources_are_judged(folder: Path) -> None:
    assert Scorer(pretrained=str(folder), sources=["nobody"])(TWO, SAID) == [[], []]


def test_without_anything_to_judge_the_recipe_is_wrong(scorer: Scorer) -> None:
    with pytest.raises(SpecialistError, match="given nothing"):
        scorer(TWO, None)


@pytest.mark.parametrize(
    ("box", "size", "context", "least", "expected"),
    [
        ((10.2, 5.0, 20.0, 9.9), (100, 50), 0.0, 1, (10, 5, 20, 10)),
        ((10, 10, 20, 30), (100, 50), 0.5, 1, (5, 0, 25, 40)),
        ((10, 10, 12, 12), (100, 50), 0.0, 8, (7, 7, 15, 15)),
        ((98, 0, 100, 50), (100, 50), 0.0, 8, (92, 0, 100, 50)),  # at an edge it grows inwards
        ((1, 1, 2, 2), (4, 3), 0.0, 8, (0, 0, 4, 3)),  # the image itself is smaller
        ((120, 60, 130, 70), (100, 50), 0.0, 1, (99, 49, 100, 50)),  # beyond the image
    ],
)
def test_crops_are_whole_pixels_inside_the_image(box, size, context, least, expected) -> None:
    assert crop_box(box, size, context, least) == expected


def test_weights_in_a_file_are_read_for_a_named_model(tmp_path: Path) -> None:
    # The smallest model that open_clip names would still be large: a file of another shape must say so.
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"visual.proj": torch.zeros(2, 2)}, str(path))
    with pytest.raises(ModelLoadError) as caught:
        Scorer("RN50", pretrained=str(path))
    assert "\n" not in caught.value.message and str(path) in caught.value.message and caught.value.hint


def test_what_cannot_be_loaded_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty = tmp_path / "empty"
    empty.mkdir()
    no_weights = tmp_path / "no_weights"
    no_weights.mkdir()
    (no_weights / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    for arguments in (
        {"pretrained": str(empty)},
        {"pretrained": str(no_weights)},
        {"pretrained": "no_such_tag"},
        {"model": "no_such_model"},
        {"model": f"local-dir:{tmp_path / 'absent'}"},
    ):
        with pytest.raises(ModelLoadError) as caught:
            Scorer(**arguments)
        assert "\n" not in caught.value.message and caught.value.hint
    with pytest.raises(RecipeError):
        Scorer(pretrained=None)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, folder: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"state_dict": Evil()}, tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelLoadError):
        Scorer(pretrained=str(tmp_path))
    assert not ran.exists()


def test_loading_leaves_the_root_logger_as_it_was(folder: Path) -> None:
    before = (list(logging.root.handlers), logging.root.level, logging.root.manager.disable)
    Scorer(pretrained=str(folder))
    assert (list(logging.root.handlers), logging.root.level, logging.root.manager.disable) == before
