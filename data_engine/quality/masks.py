"""Masks of what truth itself points at: a segmenter was given truth's box, or truth's phrase.

The figure is the mean IoU over truth's masks, as for referring segmentation (RefCOCO's mIoU). Masks of
regions that a source found itself are judged by average precision (data_engine.quality.detection).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.quality.coco import check_source, sound_mask
from data_engine.quality.shares import Shares

_COLUMNS = ["kind", "parent_id", "mask", "score"]


@dataclass(frozen=True)
class MaskQuality:
    """`mean_iou` and `above_half` (the share of IoU 0.5 and more) are over all of truth's masks: one that
    the source did not say has IoU 0. `truth` counts them, `predicted` those that it did say."""

    mean_iou: float
    above_half: float
    truth: int
    predicted: int


def mask_quality(
    dataset: Dataset, predictions: str, truth: str, kind: Literal["region", "phrase"]
) -> MaskQuality:
    """Judge one source's masks of another's regions, or phrases, by that other's masks of them.

    Of several masks of one statement the best-scored counts, the first said where scores are equal. One
    shard lies in memory at a time. Raises DatasetError when a source is missing.
    """
    check_source(dataset, predictions)
    check_source(dataset, truth)
    judged = predicted = above = 0
    total = 0.0
    for shard in dataset.shards:
        right = _masks(dataset.annotations(truth, shard, _COLUMNS), kind)
        said = _masks(dataset.annotations(predictions, shard, _COLUMNS), kind)
        overlaps = np.array([_iou(said[owner], right[owner]) for owner in said.keys() & right.keys()])
        judged += len(right)
        predicted += len(overlaps)
        total += float(overlaps.sum())
        above += int((overlaps >= 0.5).sum())
    return MaskQuality(
        mean_iou=total / judged if judged else 0.0,
        above_half=above / judged if judged else 0.0,
        truth=judged,
        predicted=predicted,
    )


def iou_by_image(dataset: Dataset, predictions: str, truth: str, kind: Literal["region", "phrase"]) -> Shares:
    """`mean_iou` as parts of each image: the sum of its masks' IoU, and how many truth has.

    Raises DatasetError when a source is missing.
    """
    check_source(dataset, predictions)
    check_source(dataset, truth)
    rows: list[tuple[str, float, float]] = []
    for shard in dataset.shards:
        table = dataset.annotations(truth, shard, [*_COLUMNS, "image_id"])
        right, said = _masks(table, kind), _masks(dataset.annotations(predictions, shard, _COLUMNS), kind)
        images = dict(zip(table["parent_id"].to_pylist(), table["image_id"].to_pylist(), strict=True))
        for owner, mask in right.items():
            overlap = _iou(said[owner], mask) if owner in said else 0.0
            rows.append((images[owner], overlap, 1.0))
    return Shares.of(rows)


def _masks(table: pa.Table, kind: str) -> dict[str, dict[str, Any]]:
    """The best mask of each statement of a kind that has one."""
    masked = pc.and_(pc.is_valid(table["mask"]), pc.is_valid(table["parent_id"]))
    rows = table.filter(pc.and_(pc.equal(table["kind"], kind), masked))
    scores = pc.fill_null(rows["score"], np.inf).combine_chunks().to_numpy(zero_copy_only=False)
    # A later entry of a dict replaces an earlier one: ascending scores, and the first said last.
    order = np.lexsort((-np.arange(len(scores)), scores))
    rows = rows.select(["parent_id", "mask"]).take(pa.array(order))
    return dict(zip(rows["parent_id"].to_pylist(), rows["mask"].to_pylist(), strict=True))


def _iou(a: dict[str, Any], b: dict[str, Any]) -> float:
    """IoU of two run-length encodings; 0 where they are of pictures of different sizes."""
    from pycocotools import mask

    return max(0.0, float(mask.iou([sound_mask(a)], [sound_mask(b)], [0])[0, 0]))
