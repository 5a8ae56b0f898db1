"""SAM and SAM 2 against the library itself: the same boxes give its masks, with each image encoded once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.entry_point import code_version, signature
from data_engine.errors import ImageError, ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import UNSEEN_SEED, make_scene
from data_engine.schema import ANNOTATIONS
from pipelines.annotate import annotate
from specialists.sam import Sam
from tests.outlined import decoded, differing, said

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.toy_sam import sam, sam2, sam2_video  # noqa: E402 - builds with transformers

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BOXES = [(1.0, 2.0, 30.0, 40.0), (10.5, 9.25, 70.0, 50.0), (3.0, 5.0, 40.0, 20.0), (0.0, 0.0, 80.0, 60.0)]
WEIGHTS = Path(__file__).resolve().parents[1] / "specialists" / "weights"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute, on a busy machine above all."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("toys")
    return {make.__name__: str(make(folder / make.__name__)) for make in (sam, sam2, sam2_video)}


@pytest.fixture(scope="module")
def models(toys: dict[str, str]) -> dict[str, Sam]:
    return {name: Sam(folder, device="cpu") for name, folder in toys.items()}


@pytest.fixture(scope="module")
def images() -> list[Image]:
    draw = np.random.default_rng(0)
    made = [
        draw.integers(0, 256, (*size, 3), np.uint8) for size in ((60, 80), (90, 50), (200, 160), (60, 80))
    ]
    for pixels in made:
        pixels.setflags(write=False)  # as decoded ones are
    return [Image(f"image-{i}", pixels) for i, pixels in enumerate(made)]


def direct(folder: str, image: Image, boxes: Sequence[Any], multimask: bool) -> tuple[Any, Any]:
    """The library's own path for one image: masks (boxes, m, h, w) and predicted IoUs (boxes, m)."""
    from transformers import AutoModelForMaskGeneration, Sam2Processor, SamProcessor

    network = AutoModelForMaskGeneration.from_pretrained(folder).eval()
    processor = (SamProcessor if folder.endswith("/sam") else Sam2Processor).from_pretrained(folder)
    inputs = processor(images=image.pil, input_boxes=[[list(box) for box in boxes]], return_tensors="pt")
    sizes = [inputs.pop(key) for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
    with torch.inference_mode():
        output = network(**inputs, multimask_output=multimask)
    masks = processor.post_process_masks([output.pred_masks[0]], *sizes)[0]
    return masks.numpy(), output.iou_scores[0].numpy()


class Counted:
    """How often a part of a network ran, and on how many at once."""

    def __init__(self, module: Any, size_of: Any = lambda given: len(given[0])) -> None:
        self.sizes: list[int] = []
        self.handle = module.register_forward_hook(
            lambda _, given, named, __: self.sizes.append(size_of(given or list(named.values()))),
            with_kwargs=True,
        )

    def __enter__(self) -> list[int]:
        return self.sizes

    def __exit__(self, *_: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("name", ["sam", "sam2", "sam2_video"])
def test_masks_and_scores_are_the_librarys_for_the_same_boxes(
    toys: dict[str, str], images: list[Image], name: str, multimask: bool
) -> None:
    model = Sam(toys[name], device="cpu", multimask_output=multimask)
    for image in images[:3]:
        within = np.clip(BOXES, 0, [image.width, image.height] * 2)
        masks, scores = direct(toys[name], image, within, multimask)
        assert scores.shape == (4, 3 if multimask else 1)
        (rows,) = model([image], said((image, BOXES)))
        assert len(rows) == 4
        for i, row in enumerate(rows):
            best = scores[i].argmax()
            assert row.score == pytest.approx(min(max(scores[i, best], 0), 1), abs=1e-4)
            assert decoded(row).shape == image.pixels.shape[:2]
            assert differing(decoded(row), masks[i, best]) < 0.002
            columns, lines = (np.flatnonzero(decoded(row).any(axis)) for axis in (0, 1))
            assert row.box == (columns[0], lines[0], columns[-1] + 1, lines[-1] + 1)
    # They are no foregone conclusion: not empty, not everything, not one for all boxes.
    shares = [decoded(row).mean() for row in rows]
    assert all(0.01 < share < 0.995 for share in shares) and len({row.mask["counts"] for row in rows}) == 4


def test_a_row_is_as_the_others_masks_and_passes_the_door(
    models: dict[str, Sam], images: list[Image]
) -> None:
    text = Annotation("text", "a thing", "brief")
    given = AnnotationRows("boxes")
    given.add(
        "image-0",
        [
            text,
            Annotation("phrase", "a thing", parent=text, span=(0, 7), box=BOXES[0]),
            Annotation("region", "thing", "phrase", box=BOXES[1]),
            Annotation("region", "THING", "ocr", box=BOXES[2]),
        ],
    )
    ids = given.table()["annotation_id"].to_pylist()
    made = models["sam"](images[:1], given.table())[0]
    assert [(row.kind, row.parent, row.text, row.granularity) for row in made] == [
        ("phrase", ids[1], None, None),
        ("region", ids[2], None, None),
    ]
    stored = AnnotationRows("sam")
    assert stored.add("image-0", made, (80, 60)) == []
    assert stored.table()["mask"].is_valid().to_pylist() == [True, True]


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_an_image_is_encoded_once_for_70_boxes_and_equal_boxes_are_asked_once(
    toys: dict[str, str], images: list[Image], name: str
) -> None:
    draw = np.random.default_rng(1)
    corners = np.sort(draw.integers(0, 60, (70, 2, 2)), axis=1).astype(float)
    boxes = [(a[0], a[1], b[0] + 2, b[1] + 0.5) for a, b in corners]
    distinct = len(set(boxes))
    model = Sam(toys[name], device="cpu", max_boxes_at_once=32)
    table = said((images[0], [*boxes, *boxes]))
    # The decoder is given the prompts' embeddings as (images, boxes, points, channels).
    decoder = Counted(model.network.mask_decoder, lambda given: given[2].shape[1])
    with Counted(model.network.vision_encoder) as encoded, decoder as asked:
        (rows,) = model(images[:1], table)
    assert encoded == [1] and sum(asked) == distinct and max(asked) == 32
    assert [row.parent for row in rows] == table["annotation_id"].to_pylist()
    assert [row.mask for row in rows[:70]] == [row.mask for row in rows[70:]]
    at_once = Sam(toys[name], device="cpu", max_boxes_at_once=500)(images[:1], table)[0]
    assert max(differing(decoded(a), decoded(b)) for a, b in zip(rows, at_once, strict=True)) < 0.002


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_an_images_masks_do_not_depend_on_its_neighbours(
    models: dict[str, Sam], images: list[Image], name: str
) -> None:
    model = models[name]
    table = said((images[0], BOXES[:2]), (images[2], BOXES), (images[3], BOXES[1:]))
    with Counted(model.network.vision_encoder) as encoded:
        together = model(images, table)
    assert encoded == [3] and together[1] == []  # of which nothing was said
    for i, image in enumerate(images):
        (alone,) = model([image], table)
        (twice, _) = model([image, image], table)
        for rows in (alone, twice):
            assert [row.parent for row in rows] == [row.parent for row in together[i]]
            assert [row.score for row in rows] == pytest.approx([r.score for r in together[i]], abs=1e-4)
            for one, other in zip(rows, together[i], strict=True):
                assert differing(decoded(one), decoded(other)) < 0.002


def test_no_more_images_at_once_than_asked_for(toys: dict[str, str], images: list[Image]) -> None:
    model = Sam(toys["sam"], device="cpu", max_images_at_once=2)
    with Counted(model.network.vision_encoder) as encoded:
        made = model(images, said(*((image, BOXES) for image in images)))
    assert encoded == [2, 2] and [len(rows) for rows in made] == [4, 4, 4, 4]


def test_what_no_box_can_be_made_of_costs_nothing_not_even_a_forward_pass(
    models: dict[str, Sam], images: list[Image]
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
    model = models["sam"]
    with Counted(model.network.vision_encoder) as encoded:
        assert model(images, said((images[0], none))) == [[], [], [], []]
        assert model(images, ANNOTATIONS.empty_table()) == [[], [], [], []]
        assert model([], ANNOTATIONS.empty_table()) == []
    assert encoded == []
    table = said((images[0], [*none, BOXES[0]]))
    (row,) = model(images[:1], table)[0]
    assert row.parent == table["annotation_id"][len(none)].as_py()
    assert row.mask == model(images[:1], said((images[0], BOXES[:1])))[0][0].mask


def test_a_box_over_the_edge_is_asked_as_what_lies_within(
    models: dict[str, Sam], images: list[Image]
) -> None:
    (over,) = models["sam"](images[:1], said((images[0], [(-20, 10, 40, 90)])))
    (within,) = models["sam"](images[:1], said((images[0], [(0, 10, 40, 60)])))
    assert over[0].mask == within[0].mask and over[0].box == within[0].box


def test_large_images_masks_are_enlarged_a_few_at_a_time(
    models: dict[str, Sam], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image("large", np.random.default_rng(2).integers(0, 256, (2400, 3600, 3), np.uint8))
    model = models["sam2"]
    counts = []
    post_process = model.processor.post_process_masks

    def counting(masks: Any, *sizes: Any) -> Any:
        counts.append(len(masks[0]))
        return post_process(masks, *sizes)

    monkeypatch.setattr(model.processor, "post_process_masks", counting)
    (rows,) = model([image], said((image, [tuple(45 * v for v in box) for box in BOXES])))
    assert counts == [3, 1]  # 8.6 million pixels each, of 33
    assert [row.mask["size"] for row in rows] == [[2400, 3600]] * 4


def test_a_strip_that_shrinks_to_nothing_costs_itself(models: dict[str, Sam]) -> None:
    strip = Image("strip", np.zeros((1, 400, 3), np.uint8))
    with pytest.raises(ImageError, match="400 x 1 pixels") as caught:
        models["sam"]([strip], said((strip, [(0, 0, 90, 1)])))
    assert caught.value.reason == "specialist_error"


def test_a_network_that_overflows_is_told_of(toys: dict[str, str], images: list[Image]) -> None:
    model = Sam(toys["sam"], device="cpu")
    with torch.no_grad():
        model.network.mask_decoder.iou_token.weight.fill_(float("inf"))
    (error,) = model(images[:1], said((images[0], BOXES)))[0]
    assert isinstance(error, ImageError) and error.reason == "bad_annotation" and "4 masks" in str(error)


@pytest.mark.parametrize("name", ["sam", "sam2"])
def test_in_half_precision_the_masks_are_nearly_the_same(
    toys: dict[str, str], models: dict[str, Sam], images: list[Image], name: str
) -> None:
    model = Sam(toys[name], device="cpu")  # which takes no other dtype on a CPU: a GPU would be given this
    model.network, model.dtype = model.network.to(torch.bfloat16), torch.bfloat16
    table = said((images[0], BOXES))
    for half, whole in zip(model(images[:1], table)[0], models[name](images[:1], table)[0], strict=True):
        assert differing(decoded(half), decoded(whole)) < 0.1
        assert half.score == pytest.approx(whole.score, abs=0.05)


def test_sources_narrow_what_is_masked(toys: dict[str, str], images: list[Image]) -> None:
    table = pa.concat_tables([said((images[0], BOXES), source=name) for name in ("human", "detector")])
    rows = Sam(toys["sam"], device="cpu", sources=["human"])(images[:1], table)[0]
    assert [row.parent for row in rows] == table["annotation_id"].to_pylist()[:4]


def test_the_hubs_older_layout_of_a_processor_is_read_as_well(
    toys: dict[str, str], models: dict[str, Sam], images: list[Image], tmp_path: Path
) -> None:
    older = Path(shutil.copytree(toys["sam2_video"], tmp_path / "older"))
    processor = json.loads((older / "processor_config.json").read_text())
    image_processor = {**processor.pop("image_processor"), "image_processor_type": "Sam2ImageProcessorFast"}
    (older / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (older / "video_preprocessor_config.json").write_text(json.dumps(processor.pop("video_processor")))
    (older / "processor_config.json").write_text(json.dumps(processor))
    table = said((images[0], BOXES))
    assert [row.mask for row in Sam(str(older), device="cpu")(images[:1], table)[0]] == [
        row.mask for row in models["sam2_video"](images[:1], table)[0]
    ]


# What is refused


def test_no_boxes_to_answer_to_is_an_error_that_says_what_to_do(
    models: dict[str, Sam], images: list[Image]
) -> None:
    with pytest.raises(SpecialistError, match="given none") as caught:
        models["sam"](images, None)
    assert "needs" in caught.value.hint


@pytest.mark.parametrize(
    "more", [{"max_boxes_at_once": 0}, {"max_images_at_once": 0}, {"dtype": "float8"}, {"device": "abacus"}]
)
def test_settings_that_cannot_be_are_refused(toys: dict[str, str], more: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        Sam(toys["sam"], **more)
    assert caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision is possible there")
def test_half_precision_wants_a_gpu(toys: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="float16 needs a GPU"):
        Sam(toys["sam"], dtype="float16")


def test_checkpoints_that_cannot_be_used_say_why_in_one_line(toys: dict[str, str], tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(toys["sam"], tmp_path / name))

    other, weightless, cut, bare = copy("other"), copy("weightless"), copy("cut"), copy("bare")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "sam_hq"}))
    (weightless / "model.safetensors").unlink()
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:5000])
    (bare / "processor_config.json").unlink()
    lacking = copy("lacking")
    from safetensors.torch import load_file, save_file

    tensors = load_file(lacking / "model.safetensors")
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    for folder, says in (
        (other, "'sam_hq'"),
        (weightless, "model.safetensors"),
        (cut, "cannot load"),
        (bare, "cannot load"),
        (lacking, "iou_token"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(ModelLoadError, match=says) as caught:
            Sam(str(folder), device="cpu")
        assert "\n" not in caught.value.message and caught.value.hint


def test_a_recipe_can_name_it_without_importing_it() -> None:
    takes = signature("specialists.sam:Sam")
    assert takes is not None and takes.required == () and "multimask_output" in takes.optional
    assert code_version("specialists.sam:Sam").endswith("version 1")


# Through the runner


@pytest.mark.skipif(find_spec("ultralytics") is None, reason="ultralytics is not installed")
def test_a_run_puts_a_mask_on_every_box_of_the_detector(toys: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for i in range(5):
        (tmp_path / "pictures" / f"{i}.jpg").write_bytes(make_scene(UNSEEN_SEED, i).jpeg())
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=3)
    dataset = Dataset.open(str(tmp_path / "ds"))
    parts = {
        "detector": SpecialistPart(
            use="specialists.detector:Detector",
            args={"weights": str(WEIGHTS / "scenes-detector.safetensors"), "device": "cpu"},
        ),
        "masks": SpecialistPart(
            use="specialists.sam:Sam", args={"model": toys["sam"], "device": "cpu"}, needs=["detector"]
        ),
    }
    recipe = Recipe(name="masks", specialists=parts).check()
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    (counts,) = sql(
        dataset,
        "SELECT count(*) AS masks, count(DISTINCT m.parent_id) AS boxes, count(b.box) AS theirs, "
        "bool_and(m.mask.size = [i.height, i.width] AND m.kind = 'region' AND m.score BETWEEN 0 AND 1) AS sound "
        "FROM annotations m JOIN images i USING (image_id) "
        "JOIN annotations b ON m.parent_id = b.annotation_id AND b.source = 'detector' WHERE m.source = 'masks'",
    ).to_pylist()
    (boxes,) = sql(dataset, "SELECT count(*) AS n FROM annotations WHERE source = 'detector'").to_pylist()
    assert counts["masks"] == counts["boxes"] == counts["theirs"] == boxes["n"] > 10 and counts["sound"]
    assert sql(dataset, "FROM failures").num_rows == 0
