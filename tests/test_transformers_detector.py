"""Detectors of transformers, by toy checkpoints; the reference is the library, one picture at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, signature
from data_engine.errors import ImageError, MissingPackageError, ModelLoadError, RecipeError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import make_scene
from pipelines.annotate import annotate
from specialists.transformers_detector import TransformersDetector
from tests import toy_object_detectors as toys

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

KINDS = ["rt_detr_v2", "detr", "deformable_detr"]
EVERYTHING = {"threshold": 0.0, "max_boxes": 1000, "device": "cpu"}
USE = "specialists.transformers_detector:TransformersDetector"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {kind: str(getattr(toys, kind)(tmp_path_factory.mktemp("toys") / kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def detectors(folders: dict[str, str]) -> dict[str, TransformersDetector]:
    """With a threshold that every box passes."""
    return {kind: TransformersDetector(folder, **EVERYTHING) for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def detector(kind: str, detectors: dict[str, TransformersDetector]) -> TransformersDetector:
    return detectors[kind]


def picture(number: int, width: int, height: int) -> Image:
    """Few large patches of colour: noise would look alike to a network."""
    rng = np.random.default_rng(number)
    patches = rng.integers(0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8)
    pixels = np.ascontiguousarray(patches.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])
    pixels.setflags(write=False)  # as decoded ones are
    return Image(f"{number:032x}", pixels)


IMAGES = [
    picture(number, *size)
    for number, size in enumerate(
        [(60, 40), (30, 70), (60, 40), (50, 50), (90, 60), (1, 1), (3, 3), (400, 5)]
    )
]


@cache
def loaded(folder: str) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    return network, AutoImageProcessor.from_pretrained(folder)


def plain(folder: str, images: Sequence[Image], without: Sequence[int] = ()) -> list[np.ndarray]:
    """What the library makes of a batch, (n, 6) for each image: class, box, score; best first.

    `without`: queries that are taken away between the network and the post-processing.
    """
    network, processor = loaded(folder)
    inputs = processor(
        [image.pil for image in images], input_data_format="channels_last", return_tensors="pt"
    )
    with torch.inference_mode():
        output = network(**inputs)
    left = [query for query in range(output.logits.shape[1]) if query not in without]
    output.logits, output.pred_boxes = output.logits[:, left], output.pred_boxes[:, left]
    # As many as there are queries, which the other kinds choose by themselves.
    more = {"top_k": len(left)} if network.config.model_type == "deformable_detr" else {}
    results = processor.post_process_object_detection(
        output, threshold=0.0, target_sizes=[(image.height, image.width) for image in images], **more
    )
    found = []
    for image, one in zip(images, results, strict=True):
        edges = torch.tensor([image.width, image.height] * 2)
        boxes = one["boxes"].clamp(min=torch.zeros(4), max=edges)
        rows = torch.cat([one["labels"][:, None], boxes, one["scores"][:, None]], dim=1).numpy()
        found.append(rows[np.argsort(-rows[:, 5], kind="stable")])
    return found


def usable(rows: np.ndarray) -> np.ndarray:
    """Those with an area and a name."""
    return rows[
        (rows[:, 3] > rows[:, 1]) & (rows[:, 4] > rows[:, 2]) & (rows[:, 0] != toys.NAMES.index("N/A"))
    ]


def numbers(annotations: Sequence[Annotation | ImageError]) -> np.ndarray:
    rows = [a for a in annotations if isinstance(a, Annotation)]
    return np.array([[toys.NAMES.index(a.text or ""), *(a.box or ()), a.score] for a in rows]).reshape(-1, 6)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for rounding, by which two of almost one score may change places."""
    assert len(found) == len(expected)
    assert found[:, 5] == pytest.approx(expected[:, 5], abs=1e-4)
    apart = np.abs(found[:, None] - expected[None]).max(axis=2, initial=0)
    assert (apart < 1e-2).any(axis=0).all() and (apart < 1e-2).any(axis=1).all()


# What is found


def test_boxes_are_the_librarys_own_one_picture_at_a_time(
    kind: str, folders: dict[str, str], detector
) -> None:
    made = [detector([image], None)[0] for image in IMAGES]
    everything = [plain(folders[kind], [image])[0] for image in IMAGES]
    for image, found, expected in zip(IMAGES, made, everything, strict=True):
        same(numbers(found), usable(expected))
        for a in found:
            assert (a.kind, a.granularity, a.parent, a.mask) == ("region", "phrase", None, None)
            x0, y0, x1, y1 = a.box
            assert 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height and 0 < a.score <= 1
        assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
        assert AnnotationRows("detector").add(image.image_id, found, (image.width, image.height)) == []
    together = np.concatenate(everything)
    assert len(set(together[:, 0])) > 2 and np.ptp(together[:, 5]) > 0.2, "or this would prove little"
    assert len(usable(together)) < len(together), "some boxes are of a class without a name, or of no area"


def test_a_batch_padded_to_one_size_would_give_other_boxes(folders: dict[str, str]) -> None:
    # The trap that the groups are for: without it this file's other tests could not fail.
    alone, company = IMAGES[0], IMAGES[1]
    moved = plain(folders["detr"], [alone, company])[0] - plain(folders["detr"], [alone])[0]
    assert np.abs(moved).max() > 1


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.sampled_from([(60, 40), (40, 60), (48, 48), (61, 40), (7, 90)]), max_size=5),
)
def test_an_image_says_the_same_in_any_company(
    detectors: dict[str, TransformersDetector], kind: str, sizes: list[tuple[int, int]]
) -> None:
    images = [picture(number, *size) for number, size in enumerate(sizes)]
    for image, found in zip(images, detectors[kind](images, None), strict=True):
        same(numbers(found), numbers(detectors[kind]([image], None)[0]))


def test_images_of_one_size_share_a_forward_pass(detector, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    handle = detector.network.register_forward_pre_hook(
        lambda module, args, given: sizes.append(len(given["pixel_values"])), with_kwargs=True
    )
    detector([picture(number, *size) for number, size in enumerate([(60, 40), (40, 60), (60, 40)])], None)
    handle.remove()
    assert sizes == ([3] if detector.network.config.model_type == "rt_detr_v2" else [2, 1])


def test_a_processor_that_pads_to_a_size_of_its_own_is_followed(
    folders: dict[str, str], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["detr"], tmp_path / "padded"))
    settings_file = folder / "preprocessor_config.json"
    padded = {**json.loads(settings_file.read_text()), "pad_size": {"height": 96, "width": 96}}
    settings_file.write_text(json.dumps(padded))
    detector = TransformersDetector(str(folder), **EVERYTHING)
    assert len(list(detector._groups(IMAGES[:3]))) == 1
    for image, found in zip(IMAGES[:3], detector(IMAGES[:3], None), strict=True):
        same(numbers(found), usable(plain(str(folder), [image])[0]))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0, 1), st.integers(1, 30))
def test_the_threshold_and_the_number_of_boxes_bound_what_is_said(
    detectors: dict[str, TransformersDetector], kind: str, threshold: float, most: int
) -> None:
    detector = detectors[kind]
    everything = detector(IMAGES[:2], None)
    try:
        detector.threshold, detector.max_boxes = threshold, most
        made = detector(IMAGES[:2], None)
    finally:
        detector.threshold, detector.max_boxes = 0.0, 1000
    for found, of in zip(made, everything, strict=True):
        # Compared as the library does it, in single precision.
        expected = [(a.text, a.box, a.score) for a in of if a.score > np.float32(threshold)][:most]
        assert [(a.text, a.box, a.score) for a in found] == expected


def test_only_the_classes_asked_for_are_found(kind: str, folders: dict[str, str], detector) -> None:
    some = TransformersDetector(folders[kind], classes=["tree", "Cat"], **EVERYTHING)
    for found, of in zip(some(IMAGES, None), detector(IMAGES, None), strict=True):
        assert numbers(found).tolist() == [row for row in numbers(of).tolist() if row[0] in (0, 3)]
    assert any(some(IMAGES, None))


def test_no_image_is_no_work(detector) -> None:
    assert detector([], None) == []


def test_what_cannot_be_shrunk_costs_itself(kind: str, detector) -> None:
    # 96 pixels at most for the longer side leave less than half a pixel for the shorter one.
    thin = picture(9, 1, 400)
    if kind == "rt_detr_v2":  # which does not keep the shape
        assert all(a.box[2] <= 1 and a.box[3] <= 400 for a in detector([thin], None)[0])
    else:
        with pytest.raises(ImageError, match="1 x 400 pixels cannot be brought"):
            detector([IMAGES[0], thin], None)


# What a model must not be trusted with


def spoilt(detector: TransformersDetector, how: Any) -> Any:
    """From now on `how` changes what the network gives; returns what undoes it."""

    def hook(module: Any, args: Any, output: Any) -> None:
        how(output)

    return detector.network.register_forward_hook(hook).remove


def test_boxes_without_a_number_are_left_out_and_counted(
    kind: str, folders: dict[str, str], detector
) -> None:
    images = [IMAGES[0], IMAGES[2]]
    before = detector(images, None)
    bad = {0: float("nan"), 3: float("inf"), 7: float("nan")}

    def how(output: Any) -> None:
        output.logits[0, 0, 1], output.logits[0, 3, 0], output.pred_boxes[0, 7, 2] = bad.values()

    undo = spoilt(detector, how)
    try:
        made = detector(images, None)
    finally:
        undo()
    *found, error = made[0]
    assert isinstance(error, ImageError) and error.reason == "bad_annotation" and " 3 boxes" in error.message
    assert [numbers(made[1]).tolist()] == [numbers(before[1]).tolist()], "its neighbour is as it was"

    expected = usable(plain(folders[kind], images[:1], without=list(bad))[0])[:8]
    assert len(expected) > 3
    same(numbers(found)[: len(expected)], expected)


def test_a_model_of_nan_says_nothing_but_that(detector) -> None:
    undo = spoilt(detector, lambda output: output.logits.fill_(float("nan")))
    try:
        made = detector(IMAGES[:2], None)
    finally:
        undo()
    assert [[type(one) for one in answer] for answer in made] == [[ImageError], [ImageError]]


def test_inverted_and_empty_boxes_and_those_beyond_the_image_are_left_out(detector) -> None:
    def how(output: Any) -> None:
        output.pred_boxes[:, :, 2:] = 0.2
        output.pred_boxes[:, :, :2] = 0.5
        output.pred_boxes[:, 0::4, 2] = -0.2
        output.pred_boxes[:, 1::4, 3] = 0
        output.pred_boxes[:, 2::4, 0] = 1.2

    undo = spoilt(detector, how)
    try:
        (found,) = detector(IMAGES[:1], None)
    finally:
        undo()
    assert found and all(isinstance(a, Annotation) for a in found)
    assert {tuple(np.round(a.box, 3)) for a in found} == {(24, 16, 36, 24)}


# What is refused


@pytest.mark.parametrize(
    "args", [{"threshold": 1.5}, {"threshold": -0.1}, {"threshold": float("nan")}, {"max_boxes": 0}]
)
def test_settings_that_cannot_be_are_refused(args: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        TransformersDetector("/nowhere", **args)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"classes": ["dogs"]}, "did you mean 'dog'"),
        ({"classes": ["cat", "N/A"]}, "known: Tree, cat, dog"),
        ({"classes": []}, "empty"),
        ({"dtype": "float8"}, "float8"),
        ({"dtype": "float16", "device": "cpu"}, "GPU"),
        ({"device": "toaster"}, "toaster"),
    ],
)
def test_args_that_do_not_fit_the_model_are_refused(
    folders: dict[str, str], args: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        TransformersDetector(folders["detr"], **args)
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"model_type": "grounding-dino"}, "specialists.grounding_dino:GroundingDino"),
        ({"model_type": "owlv2"}, "specialists.owl:OwlDetector"),
        ({"model_type": "owlvit"}, "specialists.owl:OwlDetector"),
        ({"model_type": "omdet-turbo"}, "RT-DETR"),
        ({"model_type": "pp_ocrv5_server_det"}, "specialists.ocr:Ocr"),
        ({"model_type": "bert"}, "RT-DETR"),
        ({"model_type": None}, "RT-DETR"),
        ({"model_type": ["detr"]}, "RT-DETR"),
        ({"model_type": "no_such_kind"}, "RT-DETR"),
        ({"model_type": "detr", "architectures": ["DetrForSegmentation"]}, "RT-DETR"),
    ],
)
def test_what_is_no_detector_with_classes_of_its_own_is_refused(
    tmp_path: Path, config: dict[str, Any], hint: str
) -> None:
    evil = {"auto_map": {"AutoModelForObjectDetection": "evil.Model", "AutoConfig": "evil.Config"}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **evil}))
    (tmp_path / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
    with pytest.raises(ModelLoadError) as caught:
        TransformersDetector(str(tmp_path))
    assert hint in caught.value.hint and "\n" not in caught.value.message


def changed(folder: str, to: Path, name: str, **values: Any) -> str:
    """A copy of a checkpoint, of which one JSON file has other values; None takes one away."""
    copy = Path(shutil.copytree(folder, to))
    content = {**json.loads((copy / name).read_text()), **values}
    (copy / name).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return str(copy)


def test_checkpoints_that_cannot_be_used_say_why_in_one_line(folders: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    whole = folders["detr"]
    weightless, lacking, blind = (
        Path(shutil.copytree(whole, tmp_path / name)) for name in ("weightless", "lacking", "blind")
    )
    (weightless / "model.safetensors").rename(weightless / "pytorch_model.bin")
    tensors = load_file(lacking / "model.safetensors")
    tensors.pop("class_labels_classifier.weight")
    save_file(tensors, lacking / "model.safetensors", metadata={"format": "pt"})
    (blind / "preprocessor_config.json").unlink()
    nameless = changed(
        whole, tmp_path / "nameless", "config.json", id2label=None, label2id=None, num_labels=4
    )
    gaps = {"0": "N/A", "1": "N/A", "2": " ", "3": "LABEL_3"}
    gappy = changed(whole, tmp_path / "gappy", "config.json", id2label=gaps, label2id=None)
    other = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    boxless = changed(whole, tmp_path / "boxless", "preprocessor_config.json", **other)
    for folder, says in (
        (weightless, "model.safetensors"),
        (lacking, "class_labels_classifier.weight"),
        (blind, "blind"),
        (nameless, "does not name its 4 classes"),
        (gappy, "does not name its 4 classes"),
        (boxless, "ViTImageProcessor"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(ModelLoadError, match=says) as caught:
            TransformersDetector(str(folder))
        assert "\n" not in caught.value.message and caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_named(folders: dict[str, str]) -> None:
    with pytest.raises(ModelLoadError, match="cuda"):
        TransformersDetector(folders["detr"], device="cuda:0")


def test_code_beside_a_checkpoint_is_never_used(folders: dict[str, str], detectors, tmp_path: Path) -> None:
    evil = {
        "AutoModelForObjectDetection": "evil.Model",
        "AutoConfig": "evil.C",
        "AutoImageProcessor": "evil.P",
    }
    folder = changed(folders["detr"], tmp_path / "copy", "config.json", auto_map=evil)
    folder = changed(folder, tmp_path / "both", "preprocessor_config.json", auto_map=evil)
    (Path(folder) / "evil.py").write_text("raise SystemExit('code of a checkpoint was run')")
    (found,) = TransformersDetector(folder, **EVERYTHING)(IMAGES[:1], None)
    same(numbers(found), numbers(detectors["detr"](IMAGES[:1], None)[0]))


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_a_backbone_of_timm_is_run_where_timm_is_and_else_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import import_utils

    folder = str(toys.detr(tmp_path / "timm", "test_resnet"))
    detector = TransformersDetector(folder, **EVERYTHING)
    for image, found in zip(IMAGES[:2], detector(IMAGES[:2], None), strict=True):
        same(numbers(found), usable(plain(folder, [image])[0]))
    message = import_utils.BACKENDS_MAPPING["timm"][1]
    monkeypatch.setitem(import_utils.BACKENDS_MAPPING, "timm", (lambda: False, message))
    with pytest.raises(MissingPackageError, match="timm") as caught:
        TransformersDetector(folder)
    assert "pip install timm" in caught.value.hint


# In a run


def test_a_recipe_can_name_it_without_importing_it() -> None:
    takes = signature(USE)
    assert takes is not None and takes.required == () and "classes" in takes.optional
    assert code_version(USE).endswith("version 1")


def test_in_a_run_every_box_is_a_region_and_one_image_costs_only_itself(
    folders: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    for number, size in enumerate([(160, 120), (120, 160), (160, 120), (128, 128)]):
        PIL.Image.fromarray(make_scene(1, number, size).pixels).save(tmp_path / f"pictures/{number}.png")
    PIL.Image.fromarray(picture(9, 1, 400).pixels).save(tmp_path / "pictures/thin.png")
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=3)
    dataset = Dataset.open(str(tmp_path / "ds"))
    args = {"threshold": 0.2, "max_boxes": 5, "device": "cpu"}
    recipe = Recipe(
        name="detect",
        specialists={
            kind: SpecialistPart(use=USE, args={"model": folders[kind], **args}, batch=4)
            for kind in ("rt_detr_v2", "detr")
        },
    ).check()
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    rows = sql(
        dataset,
        "SELECT a.source, a.kind, a.granularity, a.text, a.parent_id, a.box, a.score, i.width, i.height, i.keys[1] AS key "
        "FROM annotations a JOIN images i USING (image_id)",
    ).to_pylist()
    for row in rows:
        assert (row["kind"], row["granularity"], row["parent_id"]) == ("region", "phrase", None)
        assert row["text"] in ("cat", "dog", "Tree") and 0.2 < row["score"] <= 1
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 < x1 <= row["width"] and 0 <= y0 < y1 <= row["height"]
    found = {(row["source"], row["key"]) for row in rows}
    assert {key for source, key in found if source == "rt_detr_v2"} >= {f"{i}.png" for i in range(4)}
    assert any(source == "detr" for source, _ in found)
    counts = [sum((row["source"], row["key"]) == one for row in rows) for one in found]
    assert max(counts) == 5
    failures = sql(dataset, "SELECT stage, key, reason FROM failures").to_pylist()
    assert failures == [{"stage": "detr", "key": "thin.png", "reason": "specialist_error"}]
