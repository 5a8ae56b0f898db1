"""OWL as a detector of named classes, on toy checkpoints; the reference is the library, one image at a time."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import AnnotationRows
from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, signature
from data_engine.errors import ModelLoadError, RecipeError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from specialists import owl_model
from specialists.owl import OwlDetector
from specialists.owl_model import OwlModel
from tests import toy_owl
from tests.toy_sources import write_pictures

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CLASSES = ["dog", "old hat", "man near 3", "st. louis", "ball"]
PROMPT = "a photo of a {}"
IMAGES = toy_owl.pictures()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def owlv2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_owl.owlv2(tmp_path_factory.mktemp("toys") / "owlv2"))


@pytest.fixture(scope="module")
def owlvit(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toy_owl.owlvit(tmp_path_factory.mktemp("toys") / "owlvit"))


@pytest.fixture(params=["owlv2", "owlvit"])
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def everything(owlv2: str) -> OwlDetector:
    return OwlDetector(CLASSES, model=owlv2, threshold=0, device="cpu")


def inside(box: list[float], image: Image) -> list[float] | None:
    """The box clipped to the image, where at least half of it lies there."""
    x0, y0, x1, y1 = box
    clipped = [max(x0, 0.0), max(y0, 0.0), min(x1, image.width), min(y1, image.height)]
    area = max(clipped[2] - clipped[0], 0) * max(clipped[3] - clipped[1], 0)
    return clipped if 0 < (x1 - x0) * (y1 - y0) <= 2 * area else None


def test_boxes_classes_and_scores_are_the_librarys(folder: str) -> None:
    threshold = 0.3
    made = OwlDetector(CLASSES, PROMPT, folder, threshold=threshold, max_images=2)(IMAGES, None)
    seen: Counter[str] = Counter()
    dropped = 0
    for image, rows in zip(IMAGES, made, strict=True):
        texts = [PROMPT.replace("{}", name) for name in CLASSES]
        processor, output, size = toy_owl.library(folder, image, texts)
        (found,) = processor.post_process_grounded_object_detection(
            output, threshold=threshold, target_sizes=[size]
        )
        wanted = [found[key].tolist() for key in ("scores", "labels", "boxes")]
        expected = sorted(
            ((score, CLASSES[label], inside(box, image)) for score, label, box in zip(*wanted, strict=True)),
            key=lambda one: -one[0],
        )
        dropped += sum(box is None for _, _, box in expected) + 16 - len(expected)
        expected = [one for one in expected if one[2] is not None]
        assert [r.score for r in rows] == pytest.approx([score for score, _, _ in expected], abs=1e-5)
        assert [r.text for r in rows] == [name for _, name, _ in expected]
        for row, (_, _, box) in zip(rows, expected, strict=True):
            assert row.box == pytest.approx(box, abs=1e-2)
        seen.update(r.text for r in rows)
    assert len(seen) > 1 and dropped and sum(seen.values()) > 20, "or the comparison would prove little"


def test_rows_are_regions_that_the_table_takes_as_they_are(everything: OwlDetector) -> None:
    for image, rows in zip(IMAGES, everything(IMAGES, None), strict=True):
        assert rows and {(r.kind, r.granularity, r.parent) for r in rows} == {("region", "phrase", None)}
        assert {r.text for r in rows} <= set(CLASSES)
        stored = AnnotationRows("owl")
        assert stored.add(image.image_id, rows, (image.width, image.height)) == []
        assert stored.table().num_rows == len(rows)


def test_an_image_says_the_same_in_any_company(everything: OwlDetector, owlv2: str) -> None:
    together = everything(IMAGES, None)
    for max_images in (1, 3):
        other = OwlDetector(CLASSES, model=owlv2, threshold=0, max_images=max_images)
        for image, rows in zip(IMAGES, together, strict=True):
            (alone,) = other([image], None)
            assert [r.text for r in alone] == [r.text for r in rows]
            assert [r.score for r in alone] == pytest.approx([r.score for r in rows], abs=1e-5)
            assert np.array([r.box for r in alone]) == pytest.approx(
                np.array([r.box for r in rows]), abs=1e-3
            )
        assert other(IMAGES[::-1], None)[::-1] != [] and other([], None) == []
    assert [[(r.box, r.score) for r in rows] for rows in everything(IMAGES, None)] == [
        [(r.box, r.score) for r in rows] for rows in together
    ]


def counted(model: OwlModel) -> Counter[str]:
    """How many images and texts go through the towers from now on, and in how many passes."""
    seen: Counter[str] = Counter()
    towers = model.network.base_model

    def images(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        seen.update(image_passes=1, images=len(kwargs["pixel_values"]))

    def texts(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        seen.update(text_passes=1, texts=len(kwargs["input_ids"]))

    towers.vision_model.register_forward_hook(images, with_kwargs=True)
    towers.text_model.register_forward_hook(texts, with_kwargs=True)
    return seen


def test_the_vocabulary_is_embedded_once_and_not_with_the_images(owlv2: str) -> None:
    detector = OwlDetector(CLASSES, model=owlv2, max_images=2)
    seen = counted(detector.model)
    detector(IMAGES, None)
    detector(IMAGES[:1], None)
    assert seen == {"images": 6, "image_passes": 4}


def test_the_threshold_and_the_number_of_boxes_bound_what_is_said(
    owlv2: str, everything: OwlDetector
) -> None:
    (rows,) = everything(IMAGES[:1], None)
    few = OwlDetector(CLASSES, model=owlv2, threshold=0, max_boxes=3)(IMAGES[:1], None)[0]
    assert [(r.text, r.score) for r in few] == [(r.text, r.score) for r in rows[:3]]
    middle = rows[len(rows) // 2].score
    strict = OwlDetector(CLASSES, model=owlv2, threshold=middle)(IMAGES[:1], None)[0]
    assert [r.score for r in strict] == [r.score for r in rows if r.score > middle] != []
    assert OwlDetector(CLASSES, model=owlv2, threshold=1)(IMAGES, None) == [[]] * len(IMAGES)


def test_more_classes_raise_scores_and_take_over_the_boxes_that_they_fit_better(
    owlv2: str, everything: OwlDetector
) -> None:
    fewer = OwlDetector(CLASSES[:2], model=owlv2, threshold=0)(IMAGES, None)
    taken = 0
    for before, after in zip(fewer, everything(IMAGES, None), strict=True):
        scores = {tuple(r.box): r.score for r in before}
        assert scores.keys() == {tuple(r.box) for r in after}
        for row in after:
            score = scores[tuple(row.box)]
            if row.text in CLASSES[:2]:
                assert row.score == pytest.approx(score, abs=1e-6)
            else:
                assert row.score >= score
                taken += 1
    assert taken


BOXES = {
    "in the middle": ((0.3, 0.3, 0.2, 0.2), (12, 12, 24, 24)),
    "over the left edge": ((0.0, 0.3, 0.4, 0.2), (0, 12, 12, 24)),
    "mostly in the padding": ((0.3, 0.9, 0.2, 0.6), None),
    "in the padding": ((0.3, 0.9, 0.1, 0.1), None),
    "almost half in the padding": ((0.5, 0.65, 1.0, 0.5), (0, 24, 60, 40)),
    "without area": ((0.3, 0.3, 0.0, 0.2), None),
    "inverted": ((0.3, 0.3, -0.2, 0.2), None),
    "inverted twice": ((0.3, 0.3, -0.2, -0.2), None),
    "nan": ((float("nan"), 0.3, 0.2, 0.2), None),
    "infinite": ((0.3, 0.3, float("inf"), 0.2), None),
    "no number for a score": ((0.3, 0.3, 0.2, 0.2), None),
    "surely": ((0.3, 0.3, 0.2, 0.2), (12, 12, 24, 24)),
}


def test_a_model_out_of_order_says_only_what_can_be(owlv2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = OwlDetector(["dog", "cat"], model=owlv2)
    network = detector.model.network
    logits = torch.linspace(3, 2, len(BOXES))[None, :, None].repeat(1, 1, 2)
    logits[..., 1] = -9
    logits[0, -2] = float("nan")
    logits[0, -1] = torch.tensor([float("nan"), float("inf")])
    boxes = torch.tensor([[box for box, _ in BOXES.values()]])
    monkeypatch.setattr(network, "box_predictor", lambda features, grid: boxes)
    monkeypatch.setattr(network, "class_predictor", lambda features, queries: (logits, None))
    (rows,) = detector(IMAGES[:1], None)  # 60 x 40: a third of the square is padding
    wanted = [box for _, box in BOXES.values() if box is not None]
    assert [tuple(r.box) for r in rows] == [pytest.approx(b, abs=1e-4) for b in [wanted[-1], *wanted[:-1]]]
    assert rows[0].score == 1 and {r.text for r in rows[1:]} == {"dog"} and rows[0].text == "cat"
    assert AnnotationRows("owl").add("image-0", rows, (60, 40)) == []


def test_a_very_long_picture_is_made_smaller_before_it_is_padded(
    owlv2: str, owlvit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    long = Image("long", draw.integers(0, 256, (8, 30, 3), np.uint8).repeat(10, 0).repeat(10, 1))
    whole = OwlDetector(CLASSES, model=owlv2, threshold=0)([long], None)[0]
    monkeypatch.setattr(owl_model, "_LONGEST_SIDE", 100)
    detector = OwlDetector(CLASSES, model=owlv2, threshold=0)
    shown: list[tuple[int, ...]] = []
    real = detector.model.image_processor
    monkeypatch.setattr(
        detector.model, "image_processor", lambda p, **more: shown.append(p.shape) or real(p, **more)
    )
    (rows,) = detector([long], None)
    assert shown == [(27, 100, 3)]
    assert max(r.box[2] for r in rows) > 100, "boxes are still in the pixels of the image itself"
    assert len(rows) == len(whole)
    # What is stretched needs no square.
    assert OwlDetector(CLASSES, model=owlvit, threshold=0).model._pixels(long.pixels).shape == (3, 48, 48)


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 90), (3, 3)])
def test_a_picture_a_few_pixels_large_is_no_error(everything: OwlDetector, size: tuple[int, int]) -> None:
    image = Image("tiny", np.zeros((*size, 3), np.uint8))
    (rows,) = everything([image], None)
    assert AnnotationRows("owl").add("tiny", rows, (image.width, image.height)) == []


def test_half_precision_leaves_the_heads_and_so_the_boxes_in_full(
    owlv2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OwlDetector(CLASSES, model=owlv2, threshold=0)
    monkeypatch.setattr(owl_model, "device_and_dtype", lambda *_: (torch.device("cpu"), torch.float16))
    half = OwlDetector(CLASSES, model=owlv2, threshold=0)
    assert next(half.model.network.owlv2.parameters()).dtype == torch.float16
    for one, other in zip(half.model.patches(IMAGES), full.model.patches(IMAGES), strict=True):
        assert one.features.dtype == torch.float32 and one.boxes.dtype == np.float32
        assert one.boxes == pytest.approx(other.boxes, abs=1.5)
        grid = np.clip(one.boxes, 1, None).astype(np.float16).astype(np.float32)
        assert (np.abs(grid - np.clip(one.boxes, 1, None)) > 1e-6).mean() > 0.3
    assert [r.text for r in half(IMAGES, None)[0]] and half.queries.dtype == torch.float32


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.text(max_size=30) | st.sampled_from(["wow! dog", "<|endoftext|> cat", "dog " * 40]), max_size=5
    )
)
def test_a_querys_embedding_depends_on_it_alone_whatever_it_is(
    everything: OwlDetector, texts: list[str]
) -> None:
    model = everything.model
    tokens = model.tokens(texts)
    assert len(tokens) == len(texts)
    found = model.embedded(tokens)
    assert found.shape == (len(texts), 32) and bool(found.isfinite().all())
    for one, query in zip(found, tokens, strict=True):
        assert not set(query) & set(model.tokenizer.all_special_ids)
        assert torch.allclose(one, model.embedded([query])[0], atol=1e-5)


def test_of_a_long_query_the_end_is_read_and_special_tokens_are_left_out(everything: OwlDetector) -> None:
    model = everything.model
    assert model.max_tokens == 14
    long, end = model.tokens(["old " * 30 + "dog", "old " * 13 + "dog"])
    assert len(long) == 31 and len(end) == 14
    assert torch.equal(*model.embedded([long, end]))
    plain, spelled = model.tokens(["wow cat", "wow! <|endoftext|> cat"])
    assert plain == spelled
    assert model.tokens(["!", " ", ""]) == [[], [], []] and model.tokens([]) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": -0.1}, "threshold"),
        ({"max_boxes": 0}, "max_boxes"),
        ({"max_images": 0}, "max_images"),
        ({"classes": []}, "nothing to look for"),
        ({"classes": "dog"}, "nothing to look for"),
        ({"classes": ["dog", " "]}, "' ' is no name"),
        ({"classes": ["dog", False]}, "False is no name"),
        ({"classes": ["dog", "cat", "Dog "]}, "'Dog ' twice"),
        ({"prompt": "a photo"}, "'a photo'"),
        ({"prompt": "{} and {}"}, "and"),
        ({"dtype": "float8"}, "float8"),
        ({"dtype": "float16"}, "GPU"),
        ({"classes": ["dog", "old " * 12 + "hat"]}, "17 tokens"),
        ({"classes": ["dog", "!"], "prompt": "{}"}, "0 tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused(owlv2: str, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        OwlDetector(**{"classes": CLASSES, "model": owlv2, "device": "cpu", **wrong})
    assert caught.value.hint


def changed(folder: str, copy: Path, file: str, change: Any) -> str:
    shutil.copytree(folder, copy)
    path = copy / file
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))
    return str(copy)


def test_checkpoints_that_cannot_be_used_say_why_in_one_line(owlv2: str, owlvit: str, tmp_path: Path) -> None:
    from transformers import Owlv2Config, Owlv2Model

    weightless = Path(shutil.copytree(owlv2, tmp_path / "weightless"))
    (weightless / "model.safetensors").rename(weightless / "pytorch_model.bin")
    headless = Path(shutil.copytree(owlv2, tmp_path / "headless"))
    Owlv2Model(Owlv2Config.from_pretrained(owlv2)).save_pretrained(headless)
    mute = Path(shutil.copytree(owlv2, tmp_path / "mute"))
    (mute / "processor_config.json").unlink()
    cases = {
        str(tmp_path / "none"): "there is no such folder",
        changed(owlv2, tmp_path / "other", "config.json", lambda c: c.update(model_type="clip")): "'clip'",
        str(weightless): "model.safetensors",
        str(headless): "missing",
        str(mute): "cannot load",
        changed(
            owlv2,
            tmp_path / "size",
            "processor_config.json",
            lambda c: c["image_processor"].update(size={"height": 24, "width": 24}),
        ): r"\(3, 24, 24\), its weights take \(3, 48, 48\)",
        changed(
            owlvit,
            tmp_path / "crop",
            "processor_config.json",
            lambda c: c["image_processor"].update(
                do_center_crop=True, crop_size={"height": 48, "width": 48}, size={"height": 60, "width": 60}
            ),
        ): "crops the picture",
        changed(
            owlv2,
            tmp_path / "ends",
            "tokenizer_config.json",
            lambda c: c.update(eos_token="<|startoftext|>"),
        ): "its tokenizer has",
    }
    for folder, says in cases.items():
        with pytest.raises(ModelLoadError, match=says) as caught:
            OwlDetector(CLASSES, model=folder, device="cpu")
        assert "\n" not in caught.value.message and caught.value.hint


def test_the_published_owl_vit_checkpoints_form_of_a_processor_is_read(owlvit: str, tmp_path: Path) -> None:
    """They were saved in 2022 and have a "feature extractor"; the file is google/owlvit-base-patch32's, smaller."""
    old = Path(shutil.copytree(owlvit, tmp_path / "old"))
    kept = json.loads((old / "processor_config.json").read_text())["image_processor"]
    (old / "processor_config.json").unlink()
    (old / "preprocessor_config.json").write_text(
        json.dumps(
            {
                **{k: kept[k] for k in ("do_center_crop", "do_convert_rgb", "do_normalize", "do_resize")},
                **{k: kept[k] for k in ("image_mean", "image_std", "resample")},
                "crop_size": 48,
                "size": [48, 48],
                "feature_extractor_type": "OwlViTFeatureExtractor",
                "processor_class": "OwlViTProcessor",
            }
        )
    )
    theirs, ours = (OwlDetector(CLASSES, model=str(f), threshold=0)(IMAGES, None) for f in (old, owlvit))
    assert [[(r.text, r.box, r.score) for r in rows] for rows in theirs] == [
        [(r.text, r.box, r.score) for r in rows] for rows in ours
    ]


def test_code_beside_a_checkpoint_is_never_run(owlv2: str, tmp_path: Path) -> None:
    folder = changed(
        owlv2,
        tmp_path / "copy",
        "config.json",
        lambda c: c.update(auto_map={"AutoModel": "evil.Model", "AutoProcessor": "evil.Processor"}),
    )
    (tmp_path / "copy" / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
    assert OwlDetector(CLASSES, model=folder, threshold=0)(IMAGES[:1], None)[0]


def test_a_recipe_runs_it_and_names_it_without_importing_it(owlv2: str, tmp_path: Path) -> None:
    takes = signature("specialists.owl:OwlDetector")
    assert takes is not None and takes.required == ("classes",) and "prompt" in takes.optional
    assert code_version("specialists.owl:OwlDetector").endswith("version 1")
    write_pictures(tmp_path / "pictures", 5)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=3)
    dataset = Dataset.open(str(tmp_path / "ds"))
    args = {"classes": CLASSES, "model": owlv2, "threshold": 0.0, "max_images": 2}
    recipe = Recipe(
        name="objects",
        specialists={"owl": SpecialistPart(use="specialists.owl:OwlDetector", args=args, batch=4)},
    ).check()
    summary = annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    assert summary.stages[0].images == 5 and summary.stages[0].failures == 0
    rows: pa.Table = sql(dataset, "SELECT image_id, text, score FROM regions WHERE source = 'owl'")
    assert set(rows["text"].to_pylist()) <= set(CLASSES) and len(set(rows["image_id"].to_pylist())) == 5
