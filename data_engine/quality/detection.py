"""Detections of one source judged by those of another: COCO's average precision, and F1 at a threshold.

Average precision is the mean over classes and over the IoU thresholds 0.50, 0.55, ... 0.95 of the
precision at 101 recalls (cocodataset.org, "Detection evaluation"); computed by faster-coco-eval, a
compiled version of COCO's own evaluator.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, MissingPackageError
from data_engine.quality.coco import detections, ground_truth, results
from data_engine.quality.shares import Shares


@dataclass(frozen=True)
class DetectionQuality:
    """All of 0..1. A size that truth has no region of has a NaN.

    `ap` over IoU 0.5 to 0.95, `ap50` and `ap75` at one; small is below 32 x 32 pixels, large above
    96 x 96. `per_class` is `ap` of each category of truth. `f1`, `precision` and `recall` are over all
    classes together, at IoU 0.5, of the detections with a score of `threshold` and above.
    `predicted` counts the detections of truth's categories; the others are not judged.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    per_class: Mapping[str, float]
    f1: float
    precision: float
    recall: float
    threshold: float
    images: int
    truth: int
    predicted: int


def average_precision(
    dataset: Dataset,
    predictions: str,
    truth: str,
    *,
    iou_type: Literal["bbox", "segm"] = "bbox",
    threshold: float = 0.5,
    max_detections: int = 100,
    named: bool = True,
) -> DetectionQuality:
    """Judge the source `predictions` by the source `truth`, over all images of the data set.

    Only categories that truth has are judged. An image of which truth says nothing is one without
    objects. `iou_type` `segm` compares masks, and counts only regions that have one, on both sides.
    Unless they are `named`, boxes are judged whatever they are called: all are of one category.
    `max_detections` is how many of an image and class count, the best first: COCO's own number is 100.
    Raises DatasetError when a source is missing or truth has no detection, MissingPackageError.
    """
    masks = iou_type == "segm"
    judge = ground_truth(dataset, truth, masks=masks, named=named)
    if not judge["annotations"]:
        raise DatasetError(
            f"{truth!r} has no {'mask' if masks else 'detection'} to judge by",
            "name a source with regions of granularity phrase",
        )
    table = detections(dataset, predictions, masks=masks, named=named)
    found = results(dataset, predictions, judge, masks=masks, table=table)
    ap = coco_average_precision(judge, found, iou_type, max_detections)
    counts = scores_of(*count_matches(judge["annotations"], found, iou_type, threshold))
    return DetectionQuality(
        **ap,
        f1=counts["f1"],
        precision=counts["precision"],
        recall=counts["recall"],
        threshold=threshold,
        images=len(judge["images"]),
        truth=len(judge["annotations"]),
        predicted=len(found),
    )


def coco_average_precision(
    truth: dict[str, Any], found: Sequence[dict[str, Any]], iou_type: str, max_detections: int = 100
) -> dict[str, Any]:
    """`ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large` and `per_class` of COCO structures."""
    names = [category["name"] for category in sorted(truth["categories"], key=lambda c: c["id"])]
    keys = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingPackageError.of(error.name or "faster-coco-eval", "eval") from error
    judge = COCO(truth)
    evaluation = COCOeval_faster(
        judge, judge.loadRes(list(found)) if found else COCO(_empty(truth)), iou_type
    )
    evaluation.params.maxDets = sorted({1, min(10, max_detections), max_detections})
    evaluation.run()
    stats = [float(value) for value in evaluation.stats[:6]]
    # (IoU thresholds, recalls, classes, sizes, limits); -1 where a class has no truth.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [float(precision[:, :, k].mean()) for k in range(len(names))]
    return {
        **{key: value if value >= 0 else math.nan for key, value in zip(keys, stats, strict=True)},
        "per_class": dict(zip(names, per_class, strict=True)),
    }


def f1_by_image(
    dataset: Dataset,
    predictions: str,
    truth: str,
    *,
    iou_type: Literal["bbox", "segm"] = "bbox",
    threshold: float = 0.0,
) -> Shares:
    """F1 at IoU 0.5 as parts of each image: twice what matches, of what was found and what there is.

    Unlike `average_precision` it counts detections of categories that truth does not have: each is wrong.
    Raises DatasetError when a source is missing.
    """
    masks = iou_type == "segm"
    judge = ground_truth(dataset, truth, masks=masks)
    table = detections(dataset, predictions, masks=masks)
    table = table.filter(pc.greater_equal(pc.fill_null(table["score"], 1.0), threshold))
    matched = matches_by_image(
        judge["annotations"], results(dataset, predictions, judge, masks=masks, table=table), iou_type
    )
    names = {image["id"]: image["image_id"] for image in judge["images"]}
    said = pc.value_counts(table["image_id"].combine_chunks())
    return Shares.of(
        chain(
            ((name, 2.0 * matched.get(number, 0), 0.0) for number, name in names.items()),
            ((names[row["image_id"]], 0.0, 1.0) for row in judge["annotations"]),
            ((row["values"], 0.0, row["counts"]) for row in said.to_pylist()),
        )
    )


def count_matches(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], iou_type: str, threshold: float
) -> tuple[int, int, int]:
    """How many detections match a truth, how many there are, and how many truths."""
    sure = [row for row in found if row["score"] >= threshold]
    return sum(matches_by_image(truth, sure, iou_type).values()), len(sure), len(truth)


def matches_by_image(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], iou_type: str
) -> dict[int, int]:
    """How many detections match a truth, by image; images without any are left out.

    As COCO does: the best-scored detection first, each takes the free truth of its image and class that
    it overlaps most, at IoU 0.5 and above.
    """
    from pycocotools import mask as coco

    key = "segmentation" if iou_type == "segm" else "bbox"
    judged: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for row in truth:
        judged[row["image_id"], row["category_id"]].append(row[key])
    said: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        said[row["image_id"], row["category_id"]].append(row)
    matched: dict[int, int] = {}
    for place, rows in said.items():
        if place not in judged:
            continue
        rows.sort(key=lambda row: -row["score"])
        free = judged[place]
        overlap = np.asarray(coco.iou([row[key] for row in rows], free, [0] * len(free)))
        for row_overlaps in overlap:
            best = int(row_overlaps.argmax())
            if row_overlaps[best] >= 0.5:
                matched[place[0]] = matched.get(place[0], 0) + 1
                overlap[:, best] = -1.0
    return matched


def scores_of(matched: int, found: int, truth: int) -> dict[str, float]:
    """`precision`, `recall` and `f1` of counts; 0 where there is nothing to divide by."""
    return {
        "precision": matched / found if found else 0.0,
        "recall": matched / truth if truth else 0.0,
        "f1": 2 * matched / (found + truth) if found + truth else 0.0,
    }


def _empty(truth: dict[str, Any]) -> dict[str, Any]:
    """A result list without a result, which COCO's `loadRes` does not take."""
    return {"images": truth["images"], "categories": truth["categories"], "annotations": []}
