"""How well a detector finds the things of drawn scenes that it has not seen: COCO's average precision.

Computed by pycocotools from what the specialist itself returns, so the library's own validator is not
trusted with its own product, and what is measured is what a run of the engine gets.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.annotation import Annotation
from data_engine.image import Image, decode
from data_engine.scenes.scene import UNSEEN_SEED, Scene, make_scene
from data_engine.scenes.world import PRETRAINING, World

_AT_ONCE = 16

Detect = Callable[[Sequence[Image], None], list[list[Annotation]]]


@dataclass(frozen=True)
class Quality:
    """COCO average precision on `images` scenes, 0..1.

    `map50` at IoU 0.5 and `map50_95` over IoU 0.5 to 0.95 are means over the classes that occur, and
    `per_class` is the first for each. A class that the detector does not know counts as missed: 0.
    `located50` is `map50` of boxes whatever their class. `mask50` and `mask50_95` are those of masks
    instead of boxes, None for a detector without.
    """

    map50: float
    map50_95: float
    located50: float
    images: int
    per_class: dict[str, float]
    mask50: float | None = None
    mask50_95: float | None = None


def evaluate(
    weights: str | Path,
    count: int = 200,
    seed: int = UNSEEN_SEED,
    imgsz: int = 320,
    worlds: Sequence[World] = (PRETRAINING,),
) -> dict[str, Quality]:
    """Judge weights on `count` scenes of a seed of each world, as stored; 4:3 and `imgsz` pixels wide.

    `weights` is what `specialists.detector.Detector` takes. A world need not be the one that they were
    trained on: classes are matched by name. The result is by the worlds' names. Raises what that and
    `make_scene` raise.
    """
    from specialists.detector import Detector

    # Average precision is over all of a ranking, so next to nothing is left out by its score.
    detector = Detector(str(weights), confidence=0.001, max_boxes=100, imgsz=imgsz)
    masks = detector.model.task == "segment"
    size = (imgsz, imgsz * 3 // 4)
    return {
        world.name: measure(
            detector, (make_scene(seed, i, size, world) for i in range(count)), world.class_names, masks
        )
        for world in worlds
    }


def measure(detect: Detect, scenes: Iterable[Scene], names: Sequence[str], masks: bool = False) -> Quality:
    """Judge any specialist that finds regions by the truth of `scenes`, whose classes are `names`."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    images: list[Image] = []
    ids: list[dict[str, Any]] = []
    categories = {name.casefold(): i for i, name in enumerate(names)}

    def detect_waiting() -> None:
        for number, made in enumerate(detect(images, None), len(ids) - len(images)):
            found.extend(_rows(number, made, categories))
        images.clear()

    for scene in scenes:
        truth += _rows(len(ids), scene.annotations, categories)
        image = Image(str(len(ids)), decode(scene.jpeg()))
        images.append(image)
        ids.append({"id": len(ids), "width": image.width, "height": image.height})
        if len(images) == _AT_ONCE:
            detect_waiting()
    if images:
        detect_waiting()
    for number, row in enumerate(truth, 1):
        row |= {"id": number, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
        del row["score"]
    judged = {
        "info": {},
        "images": ids,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": truth,
    }
    precision = _precision(judged, found, "bbox")
    per_class = {name: _mean(precision[0, :, i]) for i, name in enumerate(names)}
    occurring = {row["category_id"] for row in truth}
    # One class of all: pycocotools' own switch for that leaves out what is of none of truth's classes.
    anything = {
        **judged,
        "categories": [{"id": 0, "name": "anything"}],
        "annotations": [{**row, "category_id": 0} for row in truth],
    }
    located = _precision(anything, [{**row, "category_id": 0} for row in found], "bbox")
    shapes = _precision(judged, [row for row in found if "segmentation" in row], "segm") if masks else None
    return Quality(
        map50=_mean(precision[0]),
        map50_95=_mean(precision),
        located50=_mean(located[0]),
        images=len(ids),
        per_class={name: per_class[name] for i, name in enumerate(names) if i in occurring},
        mask50=None if shapes is None else _mean(shapes[0]),
        mask50_95=None if shapes is None else _mean(shapes),
    )


def _rows(image: int, annotations: Iterable[Annotation], categories: dict[str, int]) -> list[dict[str, Any]]:
    """Regions as rows of COCO; one whose class is not among `categories` gets -1."""
    rows: dict[int, dict[str, Any]] = {}
    for a in annotations:
        if a.kind != "region" or a.box is None:
            continue
        if a.granularity == "phrase":
            x0, y0, x1, y1 = a.box
            rows[id(a)] = {
                "image_id": image,
                "category_id": categories.get(str(a.text).casefold(), -1),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": 1.0 if a.score is None else a.score,
            }
        elif a.mask is not None and id(a.parent) in rows:
            rows[id(a.parent)]["segmentation"] = a.mask
    return list(rows.values())


def _precision(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> np.ndarray:
    """Precision (IoU thresholds, recalls, classes); -1 where a class does not occur."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        # loadRes does not take an empty list.
        said = coco.loadRes([dict(row) for row in found]) if found else COCO()
        judge = COCOeval(coco, said, kind)
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision: np.ndarray = judge.eval["precision"][:, :, :, 0, -1]
    return precision


def _mean(values: np.ndarray) -> float:
    there = values[values > -1]
    return float(there.mean()) if there.size else 0.0
