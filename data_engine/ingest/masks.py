"""COCO's segmentations (polygons, run lengths) as one form: compressed run lengths in pixels as shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from data_engine.errors import ImageError
from data_engine.image import ImageInfo
from data_engine.run_lengths import check_fills, run_lengths


@dataclass(frozen=True, slots=True)
class Frame:
    """From the pixels that labels were drawn in, `width` x `height`, to those of the image as shown.

    `turn` is the EXIF orientation that the labels still lack (1 when they lack none).
    """

    width: int
    height: int
    turn: int
    shown_width: int
    shown_height: int

    @classmethod
    def of(cls, width: int | None, height: int | None, info: ImageInfo) -> Frame:
        """The frame of labels made for an image of `width` x `height`.

        Labels for the size as shown are taken as they are. Where the EXIF orientation swaps the sides
        and the labels have the stored size, they are turned. Labels for another size of the same shape
        (a resized copy of the image) are scaled. Raises ImageError for any other shape.
        """
        shown = (info.width, info.height)
        if width is None or height is None or (width, height) == shown:
            return cls(*shown, 1, *shown)
        if info.orientation >= 5 and (width, height) == shown[::-1]:
            return cls(width, height, info.orientation, *shown)
        # The shorter side of a resized copy was rounded to a whole pixel.
        if (
            width > 0
            and height > 0
            and abs(width * shown[1] - height * shown[0]) <= max(width, height, *shown)
        ):
            return cls(width, height, 1, *shown)
        raise ImageError(
            "bad_annotation",
            f"labels are for {width} x {height} pixels, the image is {shown[0]} x {shown[1]}",
        )

    def points(self, xy: np.ndarray) -> np.ndarray:
        """(n, 2) points, moved and clipped to the image as shown."""
        x, y, w, h = xy[:, 0], xy[:, 1], self.width, self.height
        x, y = {
            1: (x, y),
            5: (y, x),
            6: (h - y, x),
            7: (h - y, w - x),
            8: (y, w - x),
        }[self.turn]  # fmt: skip
        if self.turn >= 5:
            w, h = h, w
        moved = np.stack([x * (self.shown_width / w), y * (self.shown_height / h)], axis=1)
        return moved.clip(0, (self.shown_width, self.shown_height))

    def box(self, xywh: Sequence[float]) -> list[float]:
        """x, y, width, height as x0, y0, x1, y1, moved and clipped. Raises ImageError for no numbers."""
        numbers = np.array(xywh, dtype=np.float64)
        if numbers.shape != (4,) or not np.isfinite(numbers).all():
            raise ImageError("bad_annotation", f"a box must be 4 finite numbers, not {str(xywh)[:80]}")
        x, y, w, h = numbers
        corners = self.points(np.array([[x, y], [x + w, y + h]]))
        return [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]

    def mask(self, segmentation: Any) -> dict[str, Any]:
        """Run lengths `{"size": [h, w], "counts": str}` of polygons or run lengths. Raises ImageError."""
        if isinstance(segmentation, dict):
            return self._run_lengths(segmentation)
        polygons = [np.array(p, dtype=np.float64) for p in segmentation]
        for p in polygons:
            if p.ndim != 1 or len(p) < 6 or len(p) % 2 or not np.isfinite(p).all():
                raise ImageError("bad_annotation", "a polygon must be 3 or more pairs of finite numbers")
        # Clipped first: pycocotools traces every pixel of an outline, however far out it lies.
        moved = [self.points(p.reshape(-1, 2)).reshape(-1).tolist() for p in polygons]
        if not moved:
            raise ImageError("bad_annotation", "a mask without a polygon")
        rle = coco_mask.merge(coco_mask.frPyObjects(moved, self.shown_height, self.shown_width))
        if not coco_mask.area(rle):
            raise ImageError("bad_annotation", "a mask that covers no pixel")
        return _plain(rle)

    def _run_lengths(self, segmentation: dict[str, Any]) -> dict[str, Any]:
        h, w = (int(v) for v in segmentation["size"])
        if (w, h) != (self.width, self.height):
            raise ImageError(
                "bad_annotation", f"a mask for {w} x {h} pixels, not {self.width} x {self.height}"
            )
        counts = segmentation["counts"]
        runs = (
            run_lengths(counts) if isinstance(counts, str) else np.array([int(v) for v in counts], np.int64)
        )
        check_fills(runs, h, w)
        if not runs[1::2].any():
            raise ImageError("bad_annotation", "a mask that covers no pixel")
        rle = coco_mask.frPyObjects({"size": [h, w], "counts": runs.tolist()}, h, w)
        if self.turn == 1 and (w, h) == (self.shown_width, self.shown_height):
            return _plain(rle)
        pixels = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(w, h).T
        pixels = {1: pixels, 5: pixels.T, 6: pixels.T[:, ::-1], 7: pixels.T[::-1, ::-1], 8: pixels.T[::-1]}[
            self.turn
        ]
        # Nearest pixel, where the labels were made for another size.
        rows = (np.arange(self.shown_height) + 0.5) * (pixels.shape[0] / self.shown_height)
        columns = (np.arange(self.shown_width) + 0.5) * (pixels.shape[1] / self.shown_width)
        pixels = pixels[rows.astype(np.int64)][:, columns.astype(np.int64)]
        return _plain(coco_mask.encode(np.asfortranarray(pixels)))


def _plain(rle: dict[str, Any]) -> dict[str, Any]:
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}
