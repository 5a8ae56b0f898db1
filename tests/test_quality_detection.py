"""Detection quality over data sets on disk; the reference is COCO's own evaluator, pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset, DatasetInfo
from data_engine.errors import DatasetError
from data_engine.quality.coco import ground_truth, results
from data_engine.quality.detection import average_precision
from data_engine.schema import IMAGES
from data_engine.shards import shard_name, write_shard
from data_engine.storage import Store

pytest.importorskip("faster_coco_eval")

SIZE = 200
SHARD = 4
NAMES = ("cat", "dog", "tree")

Objects = Sequence[Annotation]


def image_id(number: int) -> str:
    return f"{number:032x}"


def make_dataset(folder: Path, sources: dict[str, Sequence[Objects]], images: int) -> Dataset:
    """A data set of pictures that nobody needs to look at, and what each source says of each."""
    store = Store(str(folder))
    shards = math.ceil(images / SHARD)
    for shard in range(shards):
        numbers = range(shard * SHARD, min(images, (shard + 1) * SHARD))
        rows = [
            {
                "image_id": image_id(n),
                "keys": [f"{n}.jpg"],
                "length": 1,
                "width": SIZE,
                "height": SIZE,
                "format": "jpeg",
            }
            for n in numbers
        ]
        write_shard(
            store, f"images/{shard_name(shard)}.parquet", pa.Table.from_pylist(rows, IMAGES), IMAGES, {}
        )
    info = DatasetInfo("id", "nowhere", "test", "fp", images, shards, SHARD, False, [], "0")
    dataset = Dataset.create(str(folder), info)
    for source, by_image in sources.items():
        for shard in range(shards):
            rows_of = AnnotationRows(source)
            for n in range(shard * SHARD, min(images, (shard + 1) * SHARD)):
                assert not rows_of.add(image_id(n), by_image[n])
            dataset.write_annotations(source, shard_name(shard), rows_of.table(), {})
    return dataset


def region(text: str, box: Sequence[float], score: float | None = None) -> Annotation:
    return Annotation("region", text, "phrase", box=box, score=score)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, SIZE - 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(8, 58, (count, 2))], axis=1).round(1)


def random_truth(rng: np.random.Generator, images: int = 10) -> list[list[Annotation]]:
    return [
        [region(str(rng.choice(NAMES)), box.tolist()) for box in random_boxes(rng, int(rng.integers(0, 6)))]
        for _ in range(images)
    ]


def again(truth: Sequence[Objects], move: float = 0.0, rng: np.random.Generator | None = None):
    """The same detections, each moved right and down by a share of its size, with random scores."""
    rng = rng or np.random.default_rng(0)
    return [
        [region(a.text, moved(a.box, move), float(rng.uniform(0.5, 1))) for a in objects] for objects in truth
    ]


def moved(box: Sequence[float], share: float) -> list[float]:
    dx, dy = (box[2] - box[0]) * share, (box[3] - box[1]) * share
    return [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy]


def reference(dataset: Dataset, predictions: str, truth: str, iou_type: str = "bbox") -> list[float]:
    """pycocotools' own first six numbers, fed from files as anyone would."""
    masks = iou_type == "segm"
    judge = COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        judge.dataset = json.loads(json.dumps(ground_truth(dataset, truth, masks=masks)))
        judge.createIndex()
        found = results(dataset, predictions, judge.dataset, masks=masks)
        evaluation = COCOeval(judge, judge.loadRes(json.loads(json.dumps(found))), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[:6]]


TRUTH = random_truth(np.random.default_rng(5))


def test_predictions_equal_to_the_truth_are_perfect(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"human": TRUTH, "detector": again(TRUTH)}, len(TRUTH))
    quality = average_precision(dataset, "detector", "human")
    assert (quality.ap, quality.ap50, quality.ap75) == pytest.approx((1, 1, 1))
    assert (quality.f1, quality.precision, quality.recall) == (1, 1, 1)
    assert set(quality.per_class.values()) == {1.0} and set(quality.per_class) == set(NAMES)
    assert quality.images == len(TRUTH)
    assert quality.truth == quality.predicted == sum(map(len, TRUTH))


def test_dropping_or_moving_boxes_makes_it_worse(tmp_path: Path) -> None:
    worse = {
        "dropped": [objects[1:] for objects in again(TRUTH)],
        "nudged": again(TRUTH, 0.1),
        "moved": again(TRUTH, 0.25),
        "elsewhere": again(TRUTH, 2.0),
        "silent": [[] for _ in TRUTH],
    }
    dataset = make_dataset(tmp_path, {"human": TRUTH, **worse}, len(TRUTH))
    found = {name: average_precision(dataset, name, "human") for name in worse}
    assert found["dropped"].ap < 1 and found["dropped"].recall < 1 and found["dropped"].precision == 1
    # Moved by a tenth of both sides: IoU 0.68, so right at 0.5 and wrong at 0.75.
    assert found["nudged"].f1 == 1 and found["nudged"].ap50 == pytest.approx(1) and found["nudged"].ap75 < 1
    assert found["moved"].ap < found["nudged"].ap < 1 and found["moved"].f1 < 1
    assert found["elsewhere"].ap < 0.1
    assert found["silent"].ap == found["silent"].f1 == found["silent"].precision == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 0.3), ties=st.booleans())
def test_average_precision_is_that_of_pycocotools(tmp_path_factory, seed, noise, ties) -> None:
    rng = np.random.default_rng(seed)
    truth = random_truth(rng, 6)
    assume(any(truth))
    said = []
    for objects in truth:
        kept = [a for a in objects if rng.random() > 0.2]
        names = [a.text if rng.random() > 0.2 else str(rng.choice(NAMES)) for a in kept]
        boxes = [moved(a.box, float(rng.normal(0, noise))) for a in kept]
        names += [str(rng.choice(NAMES)) for _ in range(2)]
        boxes += random_boxes(rng, 2).tolist()
        scores = rng.uniform(0, 1, len(boxes)).round(1 if ties else 6)
        said.append([region(*one) for one in zip(names, boxes, scores.tolist(), strict=True)])
    dataset = make_dataset(tmp_path_factory.mktemp("d"), {"human": truth, "detector": said}, len(truth))
    quality = average_precision(dataset, "detector", "human")
    ours = (
        quality.ap,
        quality.ap50,
        quality.ap75,
        quality.ap_small,
        quality.ap_medium,
        quality.ap_large,
    )
    theirs = [math.nan if value < 0 else value for value in reference(dataset, "detector", "human")]
    assert ours == pytest.approx(theirs, abs=1e-9, nan_ok=True)
    assert quality.ap == pytest.approx(np.mean(list(quality.per_class.values())))


def test_boxes_may_be_judged_whatever_they_are_called(tmp_path: Path) -> None:
    said = [
        [region("word of another world", a.box, 0.5 + n / 100) for n, a in enumerate(objects)]
        for objects in TRUTH
    ]
    said[0] = said[0][1:]
    dataset = make_dataset(tmp_path, {"human": TRUTH, "detector": said}, len(TRUTH))
    called = average_precision(dataset, "detector", "human")
    assert (called.ap, called.predicted) == (0, 0)
    located = average_precision(dataset, "detector", "human", named=False)
    assert located.precision == 1 and located.predicted == located.truth - 1
    assert 0.8 < located.ap50 < 1 and set(located.per_class) == {""}


def test_f1_counts_what_reaches_the_threshold_and_matches_one_to_one(tmp_path: Path) -> None:
    box = [10, 10, 60, 60]
    truth = [[region("cat", box)], [region("cat", box), region("cat", [100, 100, 150, 150])], []]
    said = [
        [region("cat", box, 0.9), region("cat", moved(box, 0.01), 0.8), region("dog", box, 0.9)],
        [region("cat", box, 0.3), region("cat", [100, 100, 150, 150], 0.6)],
        [region("cat", box, 0.7)],
    ]
    dataset = make_dataset(tmp_path, {"human": truth, "detector": said}, 3)
    # The second cat on the first picture finds no free truth; the dog is no class of truth's.
    half = average_precision(dataset, "detector", "human", threshold=0.5)
    assert (half.precision, half.recall, half.predicted) == (2 / 4, 2 / 3, 5)
    assert half.f1 == pytest.approx(2 * 2 / (4 + 3))
    low = average_precision(dataset, "detector", "human", threshold=0.0)
    assert (low.precision, low.recall) == (3 / 5, 3 / 3)
    assert low.ap == half.ap, "average precision knows no threshold"


def test_only_detections_count(tmp_path: Path) -> None:
    box = [10, 10, 60, 60]
    cat = region("cat", box, 0.9)
    said = [
        [
            cat,
            Annotation("region", "a sleeping cat", "brief", cat, box=box, score=0.9),
            Annotation("region", "cat", "phrase", cat, box=box, score=0.9),
            Annotation("region", None, "phrase", cat, score=0.3),
            Annotation("region", "cat", "ocr", box=box),
            Annotation("region", None, "proposal", box=box),
            Annotation("text", "cat", "class"),
        ]
    ]
    dataset = make_dataset(tmp_path, {"human": [[region("  CAT ", box)]], "detector": said}, 1)
    quality = average_precision(dataset, "detector", "human")
    assert quality.predicted == 1 and quality.ap == 1
    assert list(quality.per_class) == ["cat"], "categories are case-folded"


def test_at_most_so_many_detections_of_an_image_count(tmp_path: Path) -> None:
    box = [10, 10, 60, 60]
    wrong = [region("cat", [100 + i, 100, 150, 150], 0.9) for i in range(5)]
    sources = {"human": [[region("cat", box)]], "detector": [[*wrong, region("cat", box, 0.5)]]}
    dataset = make_dataset(tmp_path, sources, 1)
    assert average_precision(dataset, "detector", "human", max_detections=5).ap == 0
    assert average_precision(dataset, "detector", "human", max_detections=6).ap == pytest.approx(1 / 6)


def square_mask(x: int, y: int, side: int) -> dict[str, object]:
    pixels = np.zeros((SIZE, SIZE), np.uint8, order="F")
    pixels[y : y + side, x : x + side] = 1
    return {"size": [SIZE, SIZE], "counts": coco_mask.encode(pixels)["counts"].decode()}


def masked(text: str, x: int, y: int, side: int, score: float | None = None) -> list[Annotation]:
    box = (x, y, x + side, y + side)
    parent = region(text, box, score)
    return [parent, Annotation("region", parent=parent, box=box, mask=square_mask(x, y, side))]


def test_masks_are_judged_as_pycocotools_does(tmp_path: Path) -> None:
    truth = [[*masked("cat", 10, 10, 50), *masked("dog", 100, 100, 20)], [region("cat", (0, 0, 9, 9))]]
    said = [
        [
            *masked("cat", 13, 10, 50, 0.9),
            *masked("dog", 90, 100, 20, 0.8),
            region("cat", (10, 10, 60, 60), 1.0),
        ],
        masked("cat", 50, 50, 30, 0.4),
    ]
    dataset = make_dataset(tmp_path, {"human": truth, "detector": said}, 2)
    quality = average_precision(dataset, "detector", "human", iou_type="segm")
    theirs = [math.nan if v < 0 else v for v in reference(dataset, "detector", "human", "segm")]
    assert [quality.ap, quality.ap50, quality.ap75] == pytest.approx(theirs[:3])
    assert 0 < quality.ap < 1
    assert quality.truth == 2 and quality.predicted == 3, "regions without a mask do not count"
    exported = ground_truth(dataset, "human", masks=True)["annotations"]
    assert [row["area"] for row in exported] == [2500, 400]


def test_any_number_of_masks_is_judged(tmp_path: Path) -> None:
    # More than 255 in one call of pycocotools' area is an overflow there.
    truth = [[row for x in range(20) for row in masked("cat", 9 * x, 9 * y, 8)] for y in range(15)]
    dataset = make_dataset(tmp_path, {"human": truth, "detector": truth}, 15)
    quality = average_precision(dataset, "detector", "human", iou_type="segm")
    assert (quality.ap, quality.truth) == (pytest.approx(1), 300)


def test_the_export_numbers_images_and_categories_from_one(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"human": TRUTH}, len(TRUTH))
    coco = ground_truth(dataset, "human")
    assert [image["id"] for image in coco["images"]] == list(range(1, len(TRUTH) + 1))
    assert [image["file_name"] for image in coco["images"]] == [f"{n}.jpg" for n in range(len(TRUTH))]
    assert [c["name"] for c in coco["categories"]] == sorted(NAMES)
    assert [a["id"] for a in coco["annotations"]] == list(range(1, sum(map(len, TRUTH)) + 1))
    first = next(a for objects in TRUTH for a in objects)
    x0, y0, x1, y1 = first.box
    assert coco["annotations"][0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=1e-4)


def test_a_source_that_is_not_there_or_says_nothing_is_an_error(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, {"human": TRUTH, "quiet": [[] for _ in TRUTH]}, len(TRUTH))
    with pytest.raises(DatasetError, match="did you mean 'human'"):
        average_precision(dataset, "quiet", "humans")
    with pytest.raises(DatasetError, match="no detection"):
        average_precision(dataset, "human", "quiet")
    with pytest.raises(DatasetError, match="no mask"):
        average_precision(dataset, "quiet", "human", iou_type="segm")
