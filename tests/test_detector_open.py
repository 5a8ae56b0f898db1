"""The detector of listed names against ultralytics' own way of setting names, with toy models of both kinds."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.detector import Detector
from specialists.detector_open import OpenDetector
from specialists.detector_vocabulary import text_encoder
from specialists.detector_weights import ultralytics
from tests.toy_open_yolo import FEATURES, blots, fused, open_yolo, prompt_free, save_clip, save_open_yolo

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
if (
    importlib.util.find_spec("ultralytics") is None
):  # importing it here would not be as quiet as the detector does it
    pytest.skip("ultralytics is not installed", allow_module_level=True)

KINDS = ("world", "yoloe", "yoloe26")
NAMES = ["cat", "Traffic Light", "a man in a hat", "zebra"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    return {kind: str(save_open_yolo(folder / f"{kind}.pt", kind)) for kind in KINDS}


def pictures(sizes: Sequence[tuple[int, int]]) -> list[Image]:
    return [Image(f"{i:032x}", blots(width, height, i)) for i, (width, height) in enumerate(sizes)]


def numbers(annotations: Sequence[Annotation]) -> np.ndarray:
    return np.array([[*(a.box or ()), a.score] for a in annotations]).reshape(-1, 5)


def library(monkeypatch: pytest.MonkeyPatch, weights: str, clip: str, names: list[str]) -> tuple[Any, str]:
    """The library's model after its own `set_classes`, its text encoder replaced by the toy, and which it asked for."""
    asked: list[str] = []

    class Toy:
        def __init__(self) -> None:
            self.model = open_clip.create_model(f"local-dir:{clip}").eval()

        def tokenize(self, texts: list[str]) -> Any:
            return open_clip.get_tokenizer(f"local-dir:{clip}")(texts)

        def encode_text(self, tokens: Any) -> Any:
            return torch.nn.functional.normalize(self.model.encode_text(tokens), dim=-1)

    def build(variant: str, device: Any = None) -> Toy:
        asked.append(variant)
        return Toy()

    module: Any = types.ModuleType("ultralytics.nn.text_model")
    module.build_text_model = build
    monkeypatch.setitem(sys.modules, "ultralytics.nn.text_model", module)
    yolo = ultralytics().YOLO(weights)
    yolo.set_classes(names)
    return yolo, asked[0]


# pycocotools.mask.decode, written before NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
@pytest.mark.parametrize("kind", KINDS)
def test_regions_are_those_of_the_library_given_the_same_names(
    weights: dict[str, str], clip: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo, asked = library(monkeypatch, weights[kind], clip, NAMES)
    detector = OpenDetector(weights[kind], NAMES, confidence=0.02, iou=0.8, text_pretrained=clip)
    images = pictures([(128, 96), (64, 128)])
    said: set[str | None] = set()
    for image, found in zip(images, detector(images, None), strict=True):
        picture = np.ascontiguousarray(image.pixels[..., ::-1])
        (result,) = yolo.predict(
            picture, conf=0.02, iou=0.8, imgsz=128, retina_masks=True, max_det=300, verbose=False
        )
        wide = (result.boxes.xyxy[:, 2:] > result.boxes.xyxy[:, :2]).all(dim=1)
        regions = [a for a in found if a.parent is None]
        said |= {a.text for a in regions}
        assert numbers(regions) == pytest.approx(
            torch.cat([result.boxes.xyxy, result.boxes.conf[:, None]], dim=1)[wide].numpy(), abs=1e-3
        )
        assert [a.text for a in regions] == [NAMES[int(i)] for i in result.boxes.cls[wide]]
        assert len(regions) > 5 and all(a.kind == "region" and a.granularity == "phrase" for a in regions)
        assert not AnnotationRows("open").add(image.image_id, found, (image.width, image.height))
        if kind == "world":
            assert found == regions
            continue
        masks = found[1::2]
        assert len(masks) == len(regions)
        for region, mask, pixels in zip(regions, masks, result.masks.data[wide].numpy(), strict=True):
            assert mask.parent is region and mask.mask["size"] == [image.height, image.width]
            assert (coco_mask.decode(mask.mask) == pixels).mean() > 0.999
    assert len(said) > 1 and said <= set(NAMES), "one name for everything would prove little"
    assert (
        text_encoder(detector.model.model)
        == {
            "clip:ViT-B/32": ("ViT-B-32-quickgelu", "openai"),
            "mobileclip:blt": ("MobileCLIP-B", "datacompdr_lt"),
            "mobileclip2:b": ("MobileCLIP2-B", "dfndr2b"),
        }[asked]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_regions_do_not_depend_on_the_other_images_of_the_batch(
    weights: dict[str, str], clip: str, kind: str
) -> None:
    detector = OpenDetector(weights[kind], NAMES, confidence=0.0, max_boxes=30, text_pretrained=clip)
    images = pictures([(128, 96), (96, 128), (128, 96), (33, 200)])
    for image, found in zip(images, detector(images, None), strict=True):
        (alone,) = detector([image], None)
        assert [a.text for a in found] == [a.text for a in alone] and len(found) > 5
        assert numbers(found) == pytest.approx(numbers(alone), abs=1e-2)
    assert detector([], None) == []


@pytest.mark.parametrize("kind", ["world", "yoloe"])
def test_the_names_alone_are_the_vocabulary(weights: dict[str, str], clip: str, kind: str) -> None:
    images = pictures([(128, 96)])

    def scores(*names: str) -> dict[str, float]:
        detector = OpenDetector(weights[kind], list(names), confidence=0.0, text_pretrained=clip)
        assert detector.names == dict(enumerate(n.strip() for n in names))
        best: dict[str, float] = {}
        for a in detector(images, None)[0]:
            best.setdefault(str(a.text or a.parent.text), float(a.score or 0))
        return best

    cat, zebra = scores(" cat "), scores("zebra")
    assert list(cat) == ["cat"] and list(zebra) == ["zebra"] and cat["cat"] != pytest.approx(zebra["zebra"])
    assert scores("CAT")["CAT"] == pytest.approx(cat["cat"]), "the text model reads lower case"


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every try to reach the network or to start a program, each of which fails."""
    tried: list[str] = []

    def refuse(what: str) -> Any:
        def refused(*args: Any, **kwargs: Any) -> Any:
            tried.append(f"{what} {args[1:]}")
            raise OSError(f"{what} is refused")

        return refused

    monkeypatch.setattr(socket.socket, "connect", refuse("connect"))
    monkeypatch.setattr(socket, "getaddrinfo", refuse("getaddrinfo"))
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse("Popen"))
    return tried


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_downloaded_installed_or_left_behind(
    weights: dict[str, str],
    clip: str,
    kind: str,
    sealed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "ultralytics.nn.text_model", raising=False)
    detector = OpenDetector(weights[kind], NAMES, confidence=0.0, text_pretrained=clip)
    assert detector(pictures([(128, 96)]), None)[0]
    assert sealed == [] and list(tmp_path.iterdir()) == []
    assert "ultralytics.nn.text_model" not in sys.modules, "importing it installs a package from git"


@pytest.mark.parametrize(
    ("kind", "encoder"),
    [
        ("world", "ViT-B-32-quickgelu openai"),
        ("yoloe", "MobileCLIP-B datacompdr_lt"),
        ("yoloe26", "MobileCLIP2-B dfndr2b"),
    ],
)
def test_the_encoder_that_belongs_to_a_model_is_asked_for_by_default(
    weights: dict[str, str], kind: str, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelLoadError, match=encoder) as caught:
        OpenDetector(weights[kind], NAMES)
    assert "\n" not in caught.value.message and caught.value.hint
    name, tag = encoder.split()
    model = open_clip.get_model_config(name)
    published = open_clip.get_pretrained_cfg(name, tag)
    assert model["embed_dim"] == FEATURES and published["hf_hub"]
    assert bool(model.get("quick_gelu")) == bool(published.get("quick_gelu")) == (kind == "world")


def test_an_encoder_that_is_not_known_must_be_named(tmp_path: Path, clip: str) -> None:
    yolo = open_yolo("yoloe")
    yolo.model.text_model = "siglip:so400m"
    yolo.save(tmp_path / "other.pt")
    with pytest.raises(ModelLoadError, match="siglip:so400m") as caught:
        OpenDetector(str(tmp_path / "other.pt"), NAMES, text_pretrained=clip)
    assert "text_model" in caught.value.hint
    assert OpenDetector(str(tmp_path / "other.pt"), NAMES, text_model=f"local-dir:{clip}")


def test_features_of_another_size_are_refused(weights: dict[str, str], tmp_path: Path) -> None:
    small = str(save_clip(tmp_path / "small", features=64))
    for kind in ("world", "yoloe"):
        with pytest.raises(RecipeError, match="64 numbers, the detector compares 512"):
            OpenDetector(weights[kind], NAMES, text_pretrained=small)


def test_models_that_take_no_words_are_refused_with_where_to_use_them(tmp_path: Path, clip: str) -> None:
    ultralytics().YOLO("yolov8n.yaml").save(tmp_path / "closed.pt")
    built_in = prompt_free(open_yolo("yoloe"), NAMES)
    built_in.save(tmp_path / "yoloe-pf.pt")
    fused(open_yolo("yoloe"), NAMES).save(tmp_path / "fused.pt")
    (tmp_path / "exported.onnx").write_bytes(b"")
    for name, says in (
        ("closed.pt", "own classes"),
        ("yoloe-pf.pt", "prompt-free"),
        ("fused.pt", "fused"),
        ("exported.onnx", "own classes"),
    ):
        with pytest.raises(ModelLoadError, match=says) as caught:
            OpenDetector(str(tmp_path / name), NAMES, text_pretrained=clip)
        assert "specialists.detector:Detector" in caught.value.hint and name in caught.value.message
    # The hint is good advice: the plain detector runs them, with the names that they know.
    images = pictures([(128, 96)])
    picture = np.ascontiguousarray(images[0].pixels[..., ::-1])
    for name in ("yoloe-pf.pt", "fused.pt"):
        found = Detector(str(tmp_path / name), confidence=0.02, imgsz=128)(images, None)[0]
        (result,) = (
            ultralytics()
            .YOLO(str(tmp_path / name))
            .predict(picture, conf=0.02, imgsz=128, retina_masks=True, verbose=False)
        )
        assert numbers(found[::2]) == pytest.approx(result.boxes.data[:, :5].numpy(), abs=1e-3)
        assert [a.text for a in found[::2]] == [NAMES[int(i)] for i in result.boxes.cls] and len(found) > 10


def test_a_model_that_lost_its_one_to_many_head_is_refused(tmp_path: Path, clip: str) -> None:
    yolo = open_yolo("yoloe26")
    yolo.model.end2end = True
    yolo.model.fuse(verbose=False)
    yolo.save(tmp_path / "end2end.pt")
    with pytest.raises(ModelLoadError, match="one-to-many"):
        OpenDetector(str(tmp_path / "end2end.pt"), NAMES, text_pretrained=clip)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, clip: str) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (ran,))

    yolo = open_yolo("world")
    yolo.model.extra = Evil()
    torch.save({"model": yolo.model}, tmp_path / "evil.pt")
    with pytest.raises(ModelLoadError) as caught:
        OpenDetector(str(tmp_path / "evil.pt"), NAMES, text_pretrained=clip)
    assert not ran.exists() and "\n" not in caught.value.message


@pytest.mark.skipif(importlib.util.find_spec("clip") is not None, reason="the package clip is installed")
def test_a_checkpoint_with_a_text_encoder_inside_installs_nothing(
    tmp_path: Path, clip: str, sealed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Versions of ultralytics saved the CLIP that had read the names; loading one wants a package from git.
    module: Any = types.ModuleType("ultralytics.nn.text_model")
    module.CLIP = type("CLIP", (torch.nn.Module,), {"__module__": module.__name__})
    yolo = open_yolo("world")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, module.__name__, module)
        yolo.model.clip_model = module.CLIP()
        yolo.save(tmp_path / "with_clip.pt")
    with pytest.raises(ModelLoadError, match="with_clip.pt"):
        OpenDetector(str(tmp_path / "with_clip.pt"), NAMES, text_pretrained=clip)
    assert sealed == []


@pytest.mark.parametrize(
    "arguments", [{"confidence": 1.5}, {"iou": -1}, {"max_boxes": 0}, {"imgsz": 1}, {"device": "gpu"}]
)
def test_impossible_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        OpenDetector("nowhere.pt", NAMES, **arguments)


@pytest.mark.parametrize(
    "classes", [[], "cat", [""], ["cat", " "], ["cat", 3], ["cat", "Cat "], [f"n{i}" for i in range(999)]]
)
def test_classes_that_are_no_list_of_names_are_refused(classes: Any) -> None:
    with pytest.raises(RecipeError, match="class"):
        OpenDetector("nowhere.pt", classes)


def test_weights_that_are_not_there_say_what_to_do(
    weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("yolov8s-worldv2.pt", "YOLO_OFFLINE"),
        ("yoloe-11s-seg.pt", "YOLO_OFFLINE"),
        ("./my.pt", "my.pt"),
    ):
        with pytest.raises(ModelLoadError, match=said) as caught:
            OpenDetector(name, NAMES)
        assert "\n" not in caught.value.message and caught.value.hint
    with pytest.raises(ModelLoadError, match="none"):
        OpenDetector(weights["world"], NAMES, text_pretrained=str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
