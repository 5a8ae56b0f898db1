"""Detections as COCO's own structures, so that COCO's evaluators (and anyone's) can read them.

A detection is a region with a box and a category: granularity `phrase`, and no parent, since further
texts of a region, its mask and its scores name it as theirs. Categories are texts, case-folded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.entry_point import did_you_mean
from data_engine.errors import DatasetError, ImageError
from data_engine.run_lengths import sound

Coco = dict[str, Any]

_COLUMNS = ["annotation_id", "image_id", "kind", "granularity", "text", "parent_id", "box", "mask", "score"]


def ground_truth(dataset: Dataset, source: str, *, masks: bool = False, named: bool = True) -> Coco:
    """A COCO `instances` structure of what one source says of all the data set's images.

    Image ids count from 1 in the data set's order; `image_id` keeps the data set's own, and `file_name`
    is the first of its keys. Category ids count from 1 in the order of the texts. With `masks`, only
    regions that have a mask count, and it is their `segmentation` (compressed run-length encoding).
    Unless they are `named`, all regions are of one category. No region is a crowd. All of it lies in memory: about
    1 kB per region. Raises DatasetError when the source has said nothing.
    """
    images: list[dict[str, Any]] = []
    for shard in dataset.shards:
        for batch in dataset.image_batches(shard, 4096, ["image_id", "keys", "width", "height"]):
            for row in batch.to_pylist():
                name = row["keys"][0] if row["keys"] else row["image_id"]
                images.append(
                    {
                        "id": len(images) + 1,
                        "image_id": row["image_id"],
                        "file_name": name,
                        "width": row["width"],
                        "height": row["height"],
                    }
                )
    found = detections(dataset, source, masks=masks, named=named)
    texts = sorted(pc.unique(found["category"]).to_pylist())
    categories = [{"id": i, "name": text} for i, text in enumerate(texts, 1)]
    coco = {"images": images, "annotations": [], "categories": categories}
    annotations = results(dataset, source, coco, masks=masks, table=found)
    for number, row in enumerate(annotations, 1):
        del row["score"]
        row |= {"id": number, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
    if masks and annotations:
        from pycocotools import mask

        # One call takes 255 masks at most: pycocotools counts them in a byte.
        for start in range(0, len(annotations), 255):
            part = annotations[start : start + 255]
            areas = mask.area([row["segmentation"] for row in part]).tolist()
            for row, area in zip(part, areas, strict=True):
                row["area"] = float(area)
    coco["annotations"] = annotations
    return coco


def results(
    dataset: Dataset, source: str, truth: Coco, *, masks: bool = False, table: pa.Table | None = None
) -> list[dict[str, Any]]:
    """A COCO results list: the detections of a source, numbered as `truth` is.

    Categories that `truth` does not have are left out. A detection without a score counts as certain.
    `table` is what `detections` gave, where that was already read. Raises DatasetError.
    """
    found = detections(dataset, source, masks=masks) if table is None else table
    image_ids = {image["image_id"]: image["id"] for image in truth["images"]}
    category_ids = {category["name"]: category["id"] for category in truth["categories"]}
    boxes = _boxes(found["box"])
    sizes = boxes[:, 2:] - boxes[:, :2]
    columns = zip(
        found["image_id"].to_pylist(),
        found["category"].to_pylist(),
        np.concatenate([boxes[:, :2], sizes], axis=1).tolist(),
        pc.fill_null(found["score"], 1.0).to_pylist(),
        found["mask"].to_pylist() if masks else [None] * found.num_rows,
        strict=True,
    )
    rows: list[dict[str, Any]] = []
    for image_id, category, bbox, score, mask in columns:
        if category not in category_ids or image_id not in image_ids:
            continue
        row = {
            "image_id": image_ids[image_id],
            "category_id": category_ids[category],
            "bbox": bbox,
            "score": score,
        }
        if mask is not None:
            row["segmentation"] = sound_mask(mask)
        rows.append(row)
    return rows


def detections(dataset: Dataset, source: str, *, masks: bool = False, named: bool = True) -> pa.Table:
    """image_id, category, box and score of every detection of a source; with `masks`, the mask too.

    Unless they are `named`, all are of one category, the empty text.

    Raises DatasetError when the source has said nothing, StorageError when it has not said all yet.
    """
    check_source(dataset, source)
    parts = [_detections(dataset.annotations(source, shard, _COLUMNS), masks) for shard in dataset.shards]
    found = pa.concat_tables(parts) if parts else _detections(_nothing(), masks)
    if named:
        return found
    place = found.column_names.index("category")
    return found.set_column(place, "category", pa.array([""] * len(found), pa.string()))


def sound_mask(mask: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored mask as it is. Raises DatasetError where its run lengths are none, or another picture's."""
    try:
        return sound(mask)
    except ImageError as error:
        raise DatasetError(
            f"the data set holds {error.message}", "annotate its shard anew: no specialist stores such a mask"
        ) from error


def check_source(dataset: Dataset, source: str) -> None:
    """Raises DatasetError when the data set has no annotations by this source."""
    known = dataset.sources()
    if source not in known:
        raise DatasetError(
            f"{dataset.url} has no annotations by {source!r}{did_you_mean(source, known)}",
            "run that specialist first, or name another source",
        )


def _nothing() -> pa.Table:
    from data_engine.schema import ANNOTATIONS

    return ANNOTATIONS.empty_table().select(_COLUMNS)


def are_detections(table: pa.Table) -> pa.ChunkedArray:
    """Which annotation rows are detections: True or False for each."""
    region = pc.and_(pc.equal(table["kind"], "region"), pc.is_valid(table["box"]))
    named = pc.and_(pc.fill_null(pc.equal(table["granularity"], "phrase"), False), pc.is_valid(table["text"]))
    return pc.and_(pc.and_(region, named), pc.is_null(table["parent_id"]))


def _detections(table: pa.Table, masks: bool) -> pa.Table:
    found = table.filter(are_detections(table))
    # Unicode's case folding, which Arrow does not have; there are few different texts.
    texts = pc.dictionary_encode(found["text"].combine_chunks())
    folded = pa.array(
        [" ".join(text.casefold().split()) for text in texts.dictionary.to_pylist()], pa.string()
    )
    found = found.append_column("category", folded.take(texts.indices))
    columns = ["image_id", "category", "box", "score"]
    if not masks:
        return found.select(columns)
    masked = table.filter(pc.and_(pc.is_valid(table["mask"]), pc.is_valid(table["parent_id"])))
    # A region has one mask; of several, the last.
    by_region = dict(zip(masked["parent_id"].to_pylist(), range(masked.num_rows), strict=True))
    at = pa.array([by_region.get(i) for i in found["annotation_id"].to_pylist()], pa.int64())
    own = masked["mask"].combine_chunks().take(at)
    found = found.drop_columns("mask").append_column("mask", own)
    return found.filter(pc.is_valid(found["mask"])).select([*columns, "mask"])


def _boxes(column: pa.ChunkedArray) -> np.ndarray:
    """(n, 4) float64, whatever chunks and slices the column is made of."""
    values: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.astype(np.float64).reshape(-1, 4)
