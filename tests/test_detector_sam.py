"""The segmenters of ultralytics against ultralytics itself: random weights, and real ones where they lie beside."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask

from data_engine.annotation import AnnotationRows
from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, signature
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image, decode
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import UNSEEN_SEED, make_scene
from data_engine.schema import ANNOTATIONS
from pipelines.annotate import annotate
from specialists.detector_sam import UltralyticsSam
from specialists.detector_weights import ultralytics
from tests.outlined import decoded, differing, said

torch = pytest.importorskip("torch")
if find_spec("ultralytics") is None:  # importing it here would not be as quiet as the detector does it
    pytest.skip("ultralytics is not installed", allow_module_level=True)

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = 256
"""A sixteenth of the pixels that the models are made for."""

BOXES = [(1.0, 2.0, 30.0, 40.0), (10.5, 9.25, 70.0, 50.0), (3.0, 5.0, 40.0, 20.0), (0.0, 0.0, 80.0, 60.0)]
WEIGHTS = Path(__file__).resolve().parents[1] / "specialists" / "weights"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_weights(name: str) -> dict[str, Any]:
    """Of a published network, with masks that differ from box to box and predicted IoUs about 0..1."""
    ultralytics()
    from ultralytics.models.sam.build import sam_model_map

    torch.manual_seed(0)
    network = sam_model_map[name]()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if "iou_prediction_head.layers.2.bias" in key:
                parameter.copy_(torch.tensor([0.5, 0.4, 0.6, 0.5]))
            elif "iou_prediction_head" in key:
                parameter.mul_(0.5)
            elif "mask_decoder" in key and parameter.dim() > 1:
                parameter.mul_(3)
    return dict(network.state_dict())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    mobile, newest = random_weights("mobile_sam.pt"), random_weights("sam2.1_t.pt")
    # As published: SAM 2's stand under a name, and 2.1 has these parts for videos.
    newest["no_obj_embed_spatial"] = torch.zeros(1, 64)
    newest["obj_ptr_tpos_proj.weight"], newest["obj_ptr_tpos_proj.bias"] = (
        torch.zeros(64, 256),
        torch.zeros(64),
    )
    torch.save(mobile, folder / "mobile_sam.pt")
    torch.save({"model": newest}, folder / "sam2.1_t.pt")
    return {"mobile_sam": folder / "mobile_sam.pt", "sam2.1": folder / "sam2.1_t.pt"}


@pytest.fixture(scope="module")
def models(files: dict[str, Path]) -> dict[str, UltralyticsSam]:
    return {name: UltralyticsSam(str(path), imgsz=SIDE, device="cpu") for name, path in files.items()}


@pytest.fixture(scope="module")
def images() -> list[Image]:
    draw = np.random.default_rng(0)
    made = [draw.integers(0, 256, (*size, 3), np.uint8) for size in ((60, 80), (120, 81), (300, 200))]
    for pixels in made:
        pixels.setflags(write=False)  # as decoded ones are
    return [Image(f"image-{i}", pixels) for i, pixels in enumerate(made)]


def direct(
    library: Any, image: Image, boxes: Sequence[Any], imgsz: int
) -> dict[int, tuple[np.ndarray, float]]:
    """Mask and score per box, as ultralytics itself gives them; it leaves out those without a score above 0."""
    picture = np.ascontiguousarray(image.pixels[..., ::-1])
    asked = [list(map(float, box)) for box in boxes]
    arguments = {"imgsz": imgsz, "device": "cpu", "verbose": False, "save": False}
    (result,) = library.predict(picture, bboxes=asked, conf=0.0, **arguments)
    masks = result.masks.data.numpy()
    return {
        int(index): (mask, score)
        for index, mask, score in zip(result.boxes.cls, masks, result.boxes.conf.tolist(), strict=True)
    }


class Counted:
    """How often a part of a network ran, and on how many at once."""

    def __init__(self, module: Any, size_of: Any) -> None:
        self.sizes: list[int] = []
        self.handle = module.register_forward_hook(
            lambda _, given, named, __: self.sizes.append(size_of(given, named)), with_kwargs=True
        )

    def __enter__(self) -> list[int]:
        return self.sizes

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


def encoder_of(model: UltralyticsSam) -> Counted:
    return Counted(model.predictor.model.image_encoder, lambda given, named: len(given[0]))


@pytest.mark.parametrize("name", ["mobile_sam", "sam2.1"])
def test_masks_and_scores_are_the_librarys_for_the_same_boxes(
    files: dict[str, Path], models: dict[str, UltralyticsSam], images: list[Image], name: str
) -> None:
    library = ultralytics().SAM(str(files[name]))
    for image in images[:2]:
        theirs = direct(library, image, BOXES, SIDE)
        assert len(theirs) >= 3
        (rows,) = models[name]([image], said((image, BOXES)))
        assert len(rows) == 4 and AnnotationRows("sam").add("x", rows, (image.width, image.height)) == []
        for i, (mask, score) in theirs.items():
            assert rows[i].score == pytest.approx(min(score, 1.0), abs=1e-4)
            assert (
                decoded(rows[i]).shape == image.pixels.shape[:2] and differing(decoded(rows[i]), mask) < 0.002
            )
            columns, lines = (np.flatnonzero(mask.any(axis)) for axis in (0, 1))
            assert rows[i].box == (columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)
    assert all(0.001 < decoded(row).mean() < 0.999 for row in rows)  # no foregone conclusion
    assert len({row.mask["counts"] for row in rows}) == 4


def test_of_three_masks_the_best_by_predicted_iou_is_taken(
    files: dict[str, Path], images: list[Image]
) -> None:
    model = UltralyticsSam(str(files["mobile_sam"]), imgsz=SIDE, multimask_output=True, device="cpu")
    (rows,) = model(images[:1], said((images[0], BOXES)))
    # The library has no argument for it but this one, which gives three masks per box, one after the other.
    model.predictor.set_image(np.ascontiguousarray(images[0].pixels[..., ::-1]))
    masks, found = model.predictor.inference_features(
        model.predictor.features, (60, 80), bboxes=np.array(BOXES), multimask_output=True
    )
    scores = found[:, 4].numpy().reshape(4, 3)
    for i, row in enumerate(rows):
        best = int(scores[i].argmax())
        assert row.score == pytest.approx(scores[i, best], abs=1e-4)
        assert differing(decoded(row), masks[3 * i + best].numpy()) < 0.002


@pytest.mark.parametrize("name", ["mobile_sam", "sam2.1"])
def test_an_image_is_encoded_once_for_70_boxes_and_equal_boxes_are_asked_once(
    models: dict[str, UltralyticsSam], images: list[Image], name: str
) -> None:
    draw = np.random.default_rng(1)
    corners = np.sort(draw.integers(0, 60, (70, 2, 2)), axis=1).astype(float)
    boxes = [(a[0], a[1], b[0] + 2, b[1] + 0.5) for a, b in corners]
    model = models[name]
    network = model.predictor.model
    decoder = network.sam_mask_decoder if name == "sam2.1" else network.mask_decoder
    asked_of = Counted(decoder, lambda given, named: len(named["sparse_prompt_embeddings"]))
    table = said((images[0], [*boxes, *boxes]))
    with encoder_of(model) as encoded, asked_of as asked:
        (rows,) = model(images[:1], table)
    assert encoded == [1] and asked == [64, len(set(boxes)) - 64]
    assert [row.parent for row in rows] == table["annotation_id"].to_pylist()
    assert [row.mask for row in rows[:70]] == [row.mask for row in rows[70:]]


def test_an_images_masks_do_not_depend_on_its_neighbours_nor_on_what_was_asked_before(
    models: dict[str, UltralyticsSam], images: list[Image]
) -> None:
    for model in models.values():
        table = said((images[0], BOXES[:2]), (images[2], BOXES))
        together = model(images, table)
        assert [len(rows) for rows in together] == [2, 0, 4]
        alone = [model([image], table)[0] for image in images[::-1]][::-1]
        assert [[(r.parent, r.mask, r.score) for r in rows] for rows in alone] == [
            [(r.parent, r.mask, r.score) for r in rows] for rows in together
        ]


def test_what_no_box_can_be_made_of_costs_nothing_not_even_a_forward_pass(
    models: dict[str, UltralyticsSam], images: list[Image]
) -> None:
    nan, far = float("nan"), float("inf")
    none = [
        None,
        (nan, 0, 5, 5),
        (-far, 0, far, 9),
        (7, 7, 7, 9),
        (9, 9, 4, 4),
        (80, 0, 99, 9),
        (-9, -9, 0, 0),
    ]
    model = models["mobile_sam"]
    with encoder_of(model) as encoded:
        assert model(images, said((images[0], none))) == [[], [], []]
        assert model(images, ANNOTATIONS.empty_table()) == [[], [], []]
        assert model([], ANNOTATIONS.empty_table()) == []
    assert encoded == []
    table = said((images[0], [*none, BOXES[0]]))
    (row,) = model(images[:1], table)[0]
    assert row.parent == table["annotation_id"][len(none)].as_py()
    assert row.mask == model(images[:1], said((images[0], BOXES[:1])))[0][0].mask


def test_large_images_are_asked_for_fewer_boxes_at_once(models: dict[str, UltralyticsSam]) -> None:
    image = Image("large", np.random.default_rng(2).integers(0, 256, (2400, 3600, 3), np.uint8))
    model = models["mobile_sam"]
    asked_of = Counted(
        model.predictor.model.mask_decoder, lambda _, named: len(named["sparse_prompt_embeddings"])
    )
    with asked_of as asked:
        (rows,) = model([image], said((image, [tuple(45 * v for v in box) for box in BOXES])))
    assert asked == [3, 1]  # 8.6 million pixels each, of 33
    assert [row.mask["size"] for row in rows] == [[2400, 3600]] * 4


def test_a_strip_has_masks_of_its_own_size(models: dict[str, UltralyticsSam]) -> None:
    strip = Image("strip", np.random.default_rng(3).integers(0, 256, (1, 3000, 3), np.uint8))
    (rows,) = models["mobile_sam"]([strip], said((strip, [(0, 0, 900, 1), (50, 0, 2999, 1)])))
    assert [row.mask["size"] for row in rows] == [[1, 3000]] * 2


def test_sources_narrow_what_is_masked(files: dict[str, Path], images: list[Image]) -> None:
    table = pa.concat_tables([said((images[0], BOXES), source=name) for name in ("human", "detector")])
    model = UltralyticsSam(str(files["mobile_sam"]), imgsz=SIDE, device="cpu", sources=["human"])
    assert [row.parent for row in model(images[:1], table)[0]] == table["annotation_id"].to_pylist()[:4]


# What is refused


def test_no_boxes_to_answer_to_is_an_error_that_says_what_to_do(
    models: dict[str, UltralyticsSam], images: list[Image]
) -> None:
    with pytest.raises(SpecialistError, match="given none") as caught:
        models["mobile_sam"](images, None)
    assert "needs" in caught.value.hint


@pytest.mark.parametrize(
    "more", [{"imgsz": 1000}, {"imgsz": 0}, {"max_boxes_at_once": 0}, {"device": "abacus"}]
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        UltralyticsSam("mobile_sam.pt", **more)
    assert caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_named(files: dict[str, Path]) -> None:
    with pytest.raises(ModelLoadError, match="cuda"):
        UltralyticsSam(str(files["mobile_sam"]), device="cuda:0")


def test_files_that_are_none_of_its_segmenters_or_not_there_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for weights, says in (
        ("yolo11n.pt", "yolo11n.pt is not named as a segmenter"),
        ("mine.pt", "mine.pt is not named"),
        ("sam_b.safetensors", "is not named"),
        ("sam2.1_t.pt", "YOLO_OFFLINE is set"),
        ("/nowhere/mobile_sam.pt", "there is no weights file /nowhere/mobile_sam.pt"),
        ("sam_h.pt", "there is no weights file sam_h.pt"),  # known, but not published there
    ):
        with pytest.raises(ModelLoadError, match=says) as caught:
            UltralyticsSam(weights)
        assert "\n" not in caught.value.message and caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_and_those_of_other_networks_are_refused_in_one_line(
    files: dict[str, Path], tmp_path: Path
) -> None:
    whole = files["mobile_sam"].read_bytes()
    (tmp_path / "cut_mobile_sam.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty_mobile_sam.pt").write_bytes(b"")
    (tmp_path / "text_mobile_sam.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list_mobile_sam.pt")
    tensors = torch.load(files["mobile_sam"], weights_only=True)
    tensors.pop("mask_decoder.iou_token.weight")
    torch.save(tensors, tmp_path / "lacking_mobile_sam.pt")
    (tmp_path / "wrong_mobile_sam.pt").symlink_to(files["sam2.1"])
    (tmp_path / "folder_mobile_sam.pt").mkdir()
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ModelLoadError) as caught:
            UltralyticsSam(str(path), device="cpu")
        assert path.name in caught.value.message and "\n" not in caught.value.message and caught.value.hint
        assert "iou_token" in caught.value.message or "lacking" not in path.name


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"model": Evil()}, tmp_path / "mobile_sam.pt")
    (tmp_path / "plain_mobile_sam.pt").write_bytes(pickle.dumps(Evil()))
    for path in list(tmp_path.iterdir()):
        with pytest.raises(ModelLoadError) as caught:
            UltralyticsSam(str(path), device="cpu")
        assert "\n" not in caught.value.message
    assert not ran.exists()


def test_a_published_model_is_taken_from_the_cache(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "florence-data-engine" / "ultralytics" / "mobile_sam.pt"
    kept.parent.mkdir(parents=True)
    kept.symlink_to(files["mobile_sam"])
    monkeypatch.setenv("YOLO_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    UltralyticsSam(device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["florence-data-engine"]


def test_a_recipe_can_name_it_without_importing_it() -> None:
    takes = signature("specialists.detector_sam:UltralyticsSam")
    assert takes is not None and takes.required == () and "weights" in takes.optional
    assert code_version("specialists.detector_sam:UltralyticsSam").endswith("version 1")


# Through the runner


def test_a_run_puts_a_mask_on_every_box_of_the_detector(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        (tmp_path / "pictures" / f"{i}.jpg").write_bytes(make_scene(UNSEEN_SEED, i).jpeg())
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=2)
    dataset = Dataset.open(str(tmp_path / "ds"))
    parts = {
        "detector": SpecialistPart(
            use="specialists.detector:Detector",
            args={"weights": str(WEIGHTS / "scenes-detector.safetensors"), "device": "cpu"},
        ),
        "masks": SpecialistPart(
            use="specialists.detector_sam:UltralyticsSam",
            args={"weights": str(files["mobile_sam"]), "imgsz": 128, "device": "cpu"},
            needs=["detector"],
        ),
    }
    recipe = Recipe(name="masks", specialists=parts).check()
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    (counts,) = sql(
        dataset,
        "SELECT count(*) AS masks, count(DISTINCT m.parent_id) AS boxes, "
        "bool_and(m.mask.size = [i.height, i.width] AND m.kind = 'region' AND m.score BETWEEN 0 AND 1) AS sound "
        "FROM annotations m JOIN images i USING (image_id) "
        "JOIN annotations b ON m.parent_id = b.annotation_id AND b.source = 'detector' WHERE m.source = 'masks'",
    ).to_pylist()
    (boxes,) = sql(dataset, "SELECT count(*) AS n FROM annotations WHERE source = 'detector'").to_pylist()
    assert counts["masks"] == counts["boxes"] == boxes["n"] > 5 and counts["sound"]
    assert sql(dataset, "FROM failures").num_rows == 0


# Real weights on real photos


def photos(shared: Path) -> Iterator[tuple[Image, list[tuple[tuple[float, ...], np.ndarray]]]]:
    """Each photo with the boxes and masks that people drew; not those of crowds."""
    folder = shared / "data" / "photos"
    truth = json.loads((folder / "instances.json").read_text())
    for entry in truth["images"]:
        image = Image(f"{entry['id']:032x}", decode((folder / "images" / entry["file_name"]).read_bytes()))
        things = []
        for a in truth["annotations"]:
            if a["image_id"] == entry["id"] and a.get("segmentation") and not a["iscrowd"]:
                parts = coco_mask.frPyObjects(a["segmentation"], image.height, image.width)
                x, y, w, h = a["bbox"]
                things.append(((x, y, x + w, y + h), coco_mask.decode(coco_mask.merge(parts)).astype(bool)))
        if things:
            yield image, things


def compared(weights: Path, some: Sequence[Any], imgsz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per thing, the IoU of our mask and of the library's own with the human one, and of the two."""
    ours, library = UltralyticsSam(str(weights), imgsz=imgsz, device="cpu"), ultralytics().SAM(str(weights))
    table = []
    for image, things in some:
        boxes = [box for box, _ in things]
        theirs = direct(library, image, boxes, imgsz)
        statements = said((image, boxes))
        rows = {row.parent: row for row in ours([image], statements)[0]}
        empty = np.zeros(image.pixels.shape[:2], bool)
        for i, parent in enumerate(statements["annotation_id"].to_pylist()):
            mine = decoded(rows[parent]) if parent in rows else empty
            their = theirs[i][0] if i in theirs else empty
            table.append([iou(mine, things[i][1]), iou(their, things[i][1]), iou(mine, their)])
    columns = np.array(table).T
    return columns[0], columns[1], columns[2]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def test_on_three_photos_the_masks_are_the_librarys(shared: Path) -> None:
    few = sorted(photos(shared), key=lambda photo: abs(len(photo[1]) - 4))[:3]
    mine, direct_, agreement = compared(shared / "weights" / "mobile_sam.pt", few, 512)
    print(f"mean IoU of {len(mine)}: ours {mine.mean():.4f}, the library's {direct_.mean():.4f}")
    assert mine.mean() == pytest.approx(direct_.mean(), abs=0.001) and direct_.mean() > 0.6
    assert agreement.min() > 0.98


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_mean_iou_with_human_masks_on_all_photos_is_that_of_the_library(shared: Path) -> None:
    everything = list(photos(shared))
    mine, direct_, agreement = compared(shared / "weights" / "mobile_sam.pt", everything, 1024)
    print(f"{len(mine)} masks on {len(everything)} photos")
    print(f"mean IoU with people's: ours {mine.mean():.5f}, the library's {direct_.mean():.5f}")
    print(f"of ours with the library's: mean {agreement.mean():.5f}, least {agreement.min():.5f}")
    assert len(mine) > 500
    assert mine.mean() == pytest.approx(direct_.mean(), abs=0.001) and direct_.mean() > 0.7
    assert agreement.mean() > 0.99
