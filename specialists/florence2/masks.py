"""Polygons to COCO run-length masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def encode(polygons: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> dict[str, Any] | None:
    """The union of polygons, each (n, 2) in pixels with n >= 3, as `{"size": [h, w], "counts": str}`.

    `size` is (width, height). None when the polygons cover no pixel.
    """
    width, height = size
    if not polygons:
        return None
    parts = coco_mask.frPyObjects([ring.reshape(-1).tolist() for ring in polygons], height, width)
    mask = coco_mask.merge(parts)
    if int(coco_mask.area(mask)) == 0:
        return None
    return {"size": [height, width], "counts": mask["counts"].decode("ascii")}
