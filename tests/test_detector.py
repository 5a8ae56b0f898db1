"""The detector against ultralytics itself: real weights where they lie beside the checkout, toy ones else."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_engine.annotation import AnnotationRows
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image, decode
from specialists.detector import Detector
from specialists.detector_weights import load_weights, read_metadata, save_weights, ultralytics

torch = pytest.importorskip("torch")
if find_spec("ultralytics") is None:  # importing it here would not be as quiet as the detector does it
    pytest.skip("ultralytics is not installed", allow_module_level=True)

NAMES = ["cat", "dog", "Tree"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def toy_yolo(task: str = "detect", seed: int = 0) -> Any:
    """A YOLO11 an eighth as wide, whose untrained scores are spread out instead of all near zero."""
    description = "yolo11n-seg.yaml" if task == "segment" else "yolo11n.yaml"
    yolo = ultralytics().YOLO(description, task=task)
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel, yaml_model_load

    torch.manual_seed(seed)
    plan = yaml_model_load(description)
    plan["scales"] = {"n": [0.5, 0.125, 1024]}
    kind = SegmentationModel if task == "segment" else DetectionModel
    yolo.model = kind(plan, ch=3, nc=len(NAMES), verbose=False)
    yolo.model.names = dict(enumerate(NAMES))
    yolo.model.task = task
    yolo.model.args = {"imgsz": 128}
    for name, module in yolo.model.named_modules():
        if isinstance(module, torch.nn.Conv2d) and "dfl" not in name:
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for branch in yolo.model.model[-1].cv3:
        torch.nn.init.zeros_(branch[-1].bias)
        branch[-1].weight.data *= 200
    yolo.model.eval()
    return yolo


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    save_weights(toy_yolo(), path, {"licence": "none", "trained": {"on": ["nothing"]}})
    return path


def pictures(sizes: Sequence[tuple[int, int]]) -> list[Image]:
    rng = np.random.default_rng(0)
    return [
        Image(f"{i:032x}", rng.integers(0, 256, (height, width, 3), np.uint8))
        for i, (width, height) in enumerate(sizes)
    ]


def numbers(annotations: Sequence[Any]) -> np.ndarray:
    return np.array([[*a.box, a.score] for a in annotations]).reshape(-1, 5)


# Weights


def test_weights_come_back_as_they_were_saved_in_half_precision(toy: Path) -> None:
    original, loaded = toy_yolo(), load_weights(toy)
    assert loaded.task == "detect" and loaded.names == dict(enumerate(NAMES))
    saved = original.model.state_dict()
    for name, tensor in loaded.model.state_dict().items():
        expected = saved[name].half().float() if saved[name].is_floating_point() else saved[name]
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected), name
    facts = read_metadata(toy)
    assert facts["licence"] == "none" and facts["trained"] == {"on": ["nothing"]} and facts["imgsz"] == 128


def test_a_tensor_too_large_for_half_precision_stays_whole(tmp_path: Path) -> None:
    yolo = toy_yolo()
    yolo.model.model[0].bn.running_var.fill_(1e6)
    save_weights(yolo, tmp_path / "w.safetensors", {})
    assert (load_weights(tmp_path / "w.safetensors").model.model[0].bn.running_var == 1e6).all()


def test_what_load_cannot_bring_back_is_not_saved(tmp_path: Path) -> None:
    fused = toy_yolo()
    fused.model.fuse(verbose=False)
    for model in (fused, torch.nn.Linear(1, 1)):
        with pytest.raises(SpecialistError):
            save_weights(model, tmp_path / "w.safetensors", {})


def rewritten(path: Path, change: dict[str, Any], to: Path, drop: str | None = None) -> Path:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(str(path), framework="pt") as file:
        facts = dict(file.metadata())
    tensors = load_file(str(path))
    if drop is not None:
        tensors.pop(next(name for name in tensors if drop in name))
    save_file(
        tensors, str(to), {**facts, **{k: v if k == "format" else json.dumps(v) for k, v in change.items()}}
    )
    return to


def test_damaged_and_foreign_files_are_refused_in_one_line(toy: Path, tmp_path: Path) -> None:
    plan = read_metadata(toy)["yaml"]
    whole = toy.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    files = [
        tmp_path / "absent.safetensors",
        tmp_path / "cut.safetensors",
        tmp_path / "text.safetensors",
        tmp_path / "empty.safetensors",
        rewritten(toy, {"format": "pt"}, tmp_path / "foreign.safetensors"),
        rewritten(toy, {}, tmp_path / "lacking.safetensors", drop="conv"),
        rewritten(toy, {"yaml": {**plan, "nc": 7}}, tmp_path / "other.safetensors"),
        rewritten(toy, {"yaml": [1]}, tmp_path / "no_plan.safetensors"),
    ]
    for path in files:
        with pytest.raises(ModelLoadError) as caught:
            load_weights(path)
        assert "\n" not in caught.value.message and path.name in caught.value.message and caught.value.hint


def test_a_description_cannot_run_code_or_reach_the_network(toy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    plan = read_metadata(toy)["yaml"]
    code = f"__import__('pathlib').Path({str(ran)!r}).touch()"
    fetching = [[-1, 1, "TorchVision", [64, "resnet18", "DEFAULT"]], *plan["backbone"][1:]]
    for change in (
        {"activation": code},
        {"backbone": fetching},
        {"backbone": [[-1, 1, "os.system", ["true"]]]},
    ):
        path = rewritten(toy, {"yaml": {**plan, **change}}, tmp_path / "bad.safetensors")
        with pytest.raises(ModelLoadError):
            load_weights(path)
    assert not ran.exists()


def test_importing_ultralytics_through_us_leaves_no_trace(tmp_path: Path) -> None:
    # In a process of its own: no output, nothing in the home, nothing in the working folder, no setting.
    code = (
        "import os\nbefore = dict(os.environ)\n"
        "from specialists.detector_weights import ultralytics\n"
        "package = ultralytics()\n"
        "from ultralytics.utils import ONLINE, AUTOINSTALL, SETTINGS, events\n"
        "assert not ONLINE and not AUTOINSTALL and not SETTINGS['sync'] and not events.events.enabled\n"
        "assert not [k for k in os.environ if k.startswith(('YOLO_', 'ULTRALYTICS_'))]\n"
    )
    home = tmp_path / "home"
    work = tmp_path / "work"
    temporary = tmp_path / "tmp"
    for folder in (home, work, temporary):
        folder.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "ULTRALYTICS_", "XDG_"))}
    env = {
        **clean,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=work, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [
        p for folder in (home, work, temporary) for p in folder.rglob("*") if "Ultralytics" in str(p)
    ] == []
    assert list(home.iterdir()) == list(work.iterdir()) == []


# The specialist


def test_boxes_do_not_depend_on_the_other_images_of_the_batch(toy: Path) -> None:
    detector = Detector(str(toy), confidence=0.0, max_boxes=30)
    images = pictures([(128, 96), (96, 128), (300, 120), (128, 96), (33, 200), (64, 48)])
    together = detector(images, None)
    assert len({tuple(group) for group in detector.prediction.groups(images)}) == 4, (
        "two pairs share a rectangle"
    )
    for image, found in zip(images, together, strict=True):
        alone = detector([image], None)[0]
        assert [a.text for a in found] == [a.text for a in alone] and len(found) > 5
        assert numbers(found) == pytest.approx(numbers(alone), abs=1e-3)


def test_rows_are_those_of_the_library_given_one_image(toy: Path) -> None:
    detector = Detector(str(toy), confidence=0.3, iou=0.5)
    images = pictures([(128, 96), (90, 160)])
    for image, found in zip(images, detector(images, None), strict=True):
        result = load_weights(toy).predict(
            np.ascontiguousarray(image.pixels[..., ::-1]), conf=0.3, iou=0.5, imgsz=128, verbose=False
        )[0]
        expected = torch.cat([result.boxes.xyxy, result.boxes.conf[:, None]], dim=1).numpy()
        expected = expected[(expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])]
        assert numbers(found) == pytest.approx(expected, abs=1e-3) and len(found)
        assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
        for a in found:
            assert (a.kind, a.granularity) == ("region", "phrase") and a.text in NAMES and a.score >= 0.3
            assert 0 <= a.box[0] < a.box[2] <= image.width and 0 <= a.box[1] < a.box[3] <= image.height
        assert not AnnotationRows("detector").add(image.image_id, found)


def test_only_the_classes_asked_for_are_found(toy: Path) -> None:
    images = pictures([(128, 96)])
    found = Detector(str(toy), confidence=0.1, classes=["tree", "cat"])(images, None)[0]
    assert {a.text for a in found} <= {"Tree", "cat"} and found
    with pytest.raises(RecipeError, match="did you mean 'dog'"):
        Detector(str(toy), classes=["dogs"])


def test_the_image_size_comes_with_the_weights_unless_given(toy: Path) -> None:
    assert Detector(str(toy)).model.predictor.imgsz == [128, 128]
    assert Detector(str(toy), imgsz=96).model.predictor.imgsz == [96, 96]


# pycocotools.mask.decode, written before NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_segmentation_weights_give_masks_of_the_images_size(tmp_path: Path) -> None:
    path = tmp_path / "masks.safetensors"
    save_weights(toy_yolo("segment"), path, {})
    images = pictures([(128, 96), (200, 260)])
    detector = Detector(str(path), confidence=0.2, max_boxes=40)
    for image, found in zip(images, detector(images, None), strict=True):
        picture = np.ascontiguousarray(image.pixels[..., ::-1])
        result = load_weights(path).predict(
            picture, conf=0.2, max_det=40, imgsz=128, retina_masks=True, verbose=False
        )[0]
        regions, masks = found[::2], found[1::2]
        assert len(regions) == len(masks) == len(result.boxes) > 16, "more than are encoded at once"
        for region, mask, pixels in zip(regions, masks, result.masks.data.numpy(), strict=True):
            assert mask.parent is region and mask.kind == "region" and mask.text is None
            assert mask.box == region.box and mask.mask["size"] == [image.height, image.width]
            assert (coco_mask.decode(mask.mask) == pixels).mean() > 0.999
        assert not AnnotationRows("detector").add(image.image_id, found)


# ultralytics exports with torch.jit, which torch 2.15 calls deprecated, and traces branches on purpose.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_an_exported_file_of_one_size_lies_beside_its_weights_and_runs_image_by_image(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, elsewhere = tmp_path / "weights" / "toy.safetensors", tmp_path / "elsewhere"
    copy.parent.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    copy.write_bytes(toy.read_bytes())
    path = load_weights(copy).export(format="torchscript", verbose=False)
    assert Path(path) == copy.with_suffix(".torchscript") and list(elsewhere.iterdir()) == []
    images = pictures([(128, 96), (96, 128), (128, 128)])
    exported = Detector(path, confidence=0.2)
    found = exported(images, None)
    assert exported.fixed and all(found)
    # A square picture is the one for which the smallest rectangle is the full square.
    again = Detector(str(toy), confidence=0.2)(images[2:], None)[0]
    assert numbers(found[2]) == pytest.approx(numbers(again), abs=1e-2)


def test_no_image_is_no_work(toy: Path) -> None:
    assert Detector(str(toy))([], None) == []


@pytest.mark.parametrize("arguments", [{"confidence": 1.5}, {"iou": -1}, {"max_boxes": 0}, {"imgsz": 1}])
def test_impossible_settings_are_refused(toy: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Detector(str(toy), **arguments)


def test_weights_that_are_not_there_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for weights, said in (
        ("yolo11n.pt", "YOLO_OFFLINE"),
        ("./mine.pt", "no weights file"),
        ("x.onnx", "x.onnx"),
    ):
        with pytest.raises(ModelLoadError, match=said) as caught:
            Detector(weights)
        assert "\n" not in caught.value.message and caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_published_model_is_taken_from_the_cache(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "florence-data-engine" / "ultralytics" / "yolo26n.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes((shared / "weights" / "yolo26n.pt").read_bytes())
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert len(Detector("yolo26n.pt").names) == 80


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_named(toy: Path) -> None:
    with pytest.raises(ModelLoadError, match="cuda"):
        Detector(str(toy), device="cuda:0")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "cut.pt").write_bytes((tmp_path / "evil.pt").read_bytes()[:300])
    for name in ("evil.pt", "plain.pt", "cut.pt"):
        with pytest.raises(ModelLoadError) as caught:
            Detector(str(tmp_path / name))
        assert "\n" not in caught.value.message
    assert not ran.exists()


# Real weights on real photos


def average_precision(truth: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    from faster_coco_eval import COCO, COCOeval_faster

    judge = COCO(truth)
    evaluation = COCOeval_faster(judge, judge.loadRes(rows), "bbox")
    evaluation.run()
    return float(evaluation.stats[0])


def test_average_precision_on_photos_is_that_of_the_library_run_image_by_image(shared: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    weights = str(shared / "weights" / "yolo26n.pt")
    truth = json.loads((shared / "data" / "photos" / "instances.json").read_text())
    categories = {c["name"]: c["id"] for c in truth["categories"]}
    files = {i["id"]: shared / "data" / "photos" / "images" / i["file_name"] for i in truth["images"]}
    images = [Image(str(number), decode(path.read_bytes())) for number, path in files.items()]

    def row(number: int, text: str, box: Sequence[float], score: float) -> dict[str, Any]:
        x0, y0, x1, y1 = box
        return {
            "image_id": number,
            "category_id": categories[text],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }

    detector = Detector(weights, confidence=0.001, max_boxes=300)
    ours = []
    for start in range(0, len(images), 16):
        batch = images[start : start + 16]
        for image, found in zip(batch, detector(batch, None), strict=True):
            ours += [row(int(image.image_id), a.text, a.box, a.score) for a in found]

    library = ultralytics().YOLO(weights)
    theirs = []
    for number, path in files.items():
        boxes = library.predict(str(path), conf=0.001, max_det=300, verbose=False)[0].boxes
        for box, score, kind in zip(
            boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True
        ):
            theirs.append(row(number, library.names[int(kind)], box, score))

    assert len(truth["images"]) == 87 and len(categories) == 80
    mine, direct = average_precision(truth, ours), average_precision(truth, theirs)
    print(f"COCO AP: ours {mine:.5f}, the library's {direct:.5f}")
    assert mine == pytest.approx(direct, abs=0.001) and direct > 0.4


def test_real_weights_survive_the_change_of_format(shared: Path, tmp_path: Path) -> None:
    library = ultralytics().YOLO(str(shared / "weights" / "yolo26n.pt"))
    save_weights(library, tmp_path / "yolo.safetensors", {})
    path = shared / "data" / "photos" / "images" / "000000000785.jpg"
    image = Image("0" * 32, decode(path.read_bytes()))
    ours = Detector(str(tmp_path / "yolo.safetensors"))([image], None)[0]
    direct = library.predict(str(path), verbose=False)[0].boxes
    assert numbers(ours)[:, :4] == pytest.approx(direct.xyxy.numpy(), abs=0.5) and "person" in {
        a.text for a in ours
    }
