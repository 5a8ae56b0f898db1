"""What specialists that outline boxes are told, and their masks as pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from data_engine.annotation import Annotation
from data_engine.image import Image
from data_engine.schema import ANNOTATIONS


def said(*by_image: tuple[Image, Sequence[Any]], source: str = "boxes") -> pa.Table:
    """Regions with these boxes, as they stand: the door to the table would refuse some."""
    rows = [
        {
            "annotation_id": f"{image.image_id}/{source}/{i}", "image_id": image.image_id, "kind": "region",
            "granularity": "phrase", "text": "thing", "box": box, "source": source, "round": 0,
        }
        for image, boxes in by_image
        for i, box in enumerate(boxes)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)


def decoded(row: Annotation) -> np.ndarray:
    assert row.mask is not None
    return np.asarray(coco_mask.decode(row.mask)).astype(bool)


def differing(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pixels: one whose logit is nearly 0 may fall on either side."""
    return float((a != b).mean())
