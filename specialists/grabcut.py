"""GrabCut: a mask for each box, without any weights.

Rother, Kolmogorov and Blake, "GrabCut: interactive foreground extraction using iterated graph cuts"
(SIGGRAPH 2004), as OpenCV runs it: the colours inside and outside of a box are two mixtures of Gaussians,
learnt from this image alone, and a graph cut draws the border between them where the picture has edges.

It is for things that differ in colour from what is around them, and for machines without a segmenter's
weights. With truth's boxes as prompts, the mean IoU with truth's masks is 0.90 on drawn scenes (the boxes
themselves: 0.62). Among the textures and crowds of photos it is weak: 0.66 on 476 of COCO's (the boxes: 0.59,
ellipses in them: 0.62), though its score tells the better half, where it is 0.72.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import MissingPackageError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.box_prompts import box_to_fill
from specialists.mask_encoding import encode_at
from specialists.said import Statement, statements

VERSION = 1

_CORE = 0.3
"""The ellipse of this share of the box's sides, at its middle, is taken as the thing itself. Without it
most of the box goes to the background in two of three boxes of photos; a larger one costs scenes more than it
helps photos."""

_LEAST_AGREEMENT = 0.6
"""A mask whose extent fills less of its box is worse than the box's ellipse, on scenes and photos alike."""

_LEAST_SIDE = 4
"""In pixels of the crop: in a smaller box there are no colours to learn from."""

_LEAST_BACKGROUND = 0.02
"""The share of the crop that must lie outside of the box, to learn what is around from."""

_SMALLEST_PART = 0.1
"""Parts smaller than this share of the largest are specks of the same colour as the thing, not of it."""

_OUTSIDE, _INSIDE, _PROBABLY = 0, 1, 3
"""OpenCV's GC_BGD, GC_FGD and GC_PR_FGD; in these and in GC_PR_BGD the lowest bit says foreground."""

Mask = NDArray[np.bool_]


class GrabCut:
    """One mask for every region and every phrase in `said` that has a box.

    Lines of text (granularity `ocr`) and further texts of a region get none, and neither does a box
    beyond the image. A mask lies in its box; its row's box is the mask's own extent, and its score
    how much of the prompt's box that extent fills, 0..1, for a thing touches all sides of its box.
    Where a cut is not possible (a box of less than four pixels, or of the whole image) or comes out
    filling less than 0.6 of the box, the mask is the ellipse that fills the box, with score 0:
    `filters.score:MinimumScore` drops these guesses.

    - `context`: how much of the surroundings it learns from, on each side as a share of the box's own.
    - `iterations`: of learning the colours and cutting. Three take twice as long, and gained nothing.
    - `max_pixels`: larger crops are shrunk to so many, and their masks enlarged.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Equal boxes of an image are cut once. The same image and box give the same mask. OpenCV is set to
    one thread in the whole process: a graph cut uses one, so more actors are what makes it faster.
    Raises RecipeError or MissingPackageError.
    """

    def __init__(
        self,
        context: float = 0.25,
        iterations: int = 1,
        max_pixels: int = 32_768,
        sources: list[str] | None = None,
    ) -> None:
        try:
            import cv2
        except ImportError as error:
            raise MissingPackageError.of(error.name or "cv2", "ocr") from error
        if not context > 0 or iterations < 1 or max_pixels < 1024:
            raise RecipeError(
                "context must be above 0, iterations at least 1 and max_pixels at least 1,024", "raise them"
            )
        cv2.setNumThreads(1)
        self.context = context
        self.iterations = iterations
        self.max_pixels = max_pixels
        self.sources = None if sources is None else frozenset(sources)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per statement with a box, in the order of `said`."""
        if said is None:
            raise SpecialistError(
                "GrabCut makes masks of boxes, and was given none",
                "name the specialists that find boxes under this one's `needs`",
            )
        given = statements(said, self.sources)
        return [self._masks(image, given.get(image.image_id, [])) for image in images]

    def _masks(self, image: Image, given: Sequence[Statement]) -> list[Annotation]:
        cuts: dict[tuple[int, int, int, int], dict[str, Any] | None] = {}
        made = []
        for statement in given:
            pixels = _prompt(statement, image)
            if pixels is None:
                continue
            if pixels not in cuts:
                cuts[pixels] = self._row(image, pixels)
            row = cuts[pixels]
            if row is not None:
                made.append(Annotation(statement.kind, parent=statement.reference, **row))
        return made

    def _row(self, image: Image, box: tuple[int, int, int, int]) -> dict[str, Any] | None:
        """`mask`, its `box` and its `score`."""
        x0, y0, x1, y1 = box
        mask = self._cut(image.pixels, box)
        score = 0.0 if mask is None else _agreement(mask)
        if mask is None or score < _LEAST_AGREEMENT:
            mask, score = _ellipse(y1 - y0, x1 - x0), 0.0
        left, top, right, bottom = _extent(mask)
        rle = encode_at(mask, (x0, y0), (image.width, image.height))
        if rle is None:
            return None
        return {"mask": rle, "box": (x0 + left, y0 + top, x0 + right, y0 + bottom), "score": score}

    def _cut(self, pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> Mask | None:
        """The mask of a box, of the box's own size (h, w); None where there is nothing to learn from."""
        import cv2

        crop, (x0, y0, x1, y1) = self._crop(pixels, box)
        labels = np.full(crop.shape[:2], _OUTSIDE, np.uint8)
        inside = labels[y0:y1, x0:x1]
        if min(inside.shape) < _LEAST_SIDE or labels.size - inside.size < _LEAST_BACKGROUND * labels.size:
            return None
        inside[:] = np.where(_ellipse(y1 - y0, x1 - x0, _CORE), _INSIDE, _PROBABLY)
        colours = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)  # colours are first grouped by chance: the same, whatever was cut before
        cv2.grabCut(crop, labels, (0, 0, 0, 0), *colours, self.iterations, cv2.GC_INIT_WITH_MASK)
        found = _large_parts((inside & 1).astype(np.uint8))
        size = (box[2] - box[0], box[3] - box[1])
        if found.shape == (size[1], size[0]):
            return found > 0
        return np.asarray(cv2.resize(found * 255, size, interpolation=cv2.INTER_LINEAR) > 127)

    def _crop(
        self, pixels: NDArray[np.uint8], box: tuple[int, int, int, int]
    ) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
        """The box with its surroundings, at most `max_pixels` large, and where the box lies in it."""
        import cv2

        x0, y0, x1, y1 = box
        height, width = pixels.shape[:2]
        beside, above = (max(_LEAST_SIDE, math.ceil((b - a) * self.context)) for a, b in ((x0, x1), (y0, y1)))
        left, top = max(0, x0 - beside), max(0, y0 - above)
        crop = pixels[top : min(height, y1 + above), left : min(width, x1 + beside)]
        shrink = min(1.0, math.sqrt(self.max_pixels / (crop.shape[0] * crop.shape[1])))
        if shrink == 1.0:
            return np.ascontiguousarray(crop), (x0 - left, y0 - top, x1 - left, y1 - top)
        size = (max(1, int(crop.shape[1] * shrink)), max(1, int(crop.shape[0] * shrink)))
        across, down = size[0] / crop.shape[1], size[1] / crop.shape[0]
        small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        return small, (
            round((x0 - left) * across),
            round((y0 - top) * down),
            round((x1 - left) * across),
            round((y1 - top) * down),
        )


def _prompt(statement: Statement, image: Image) -> tuple[int, int, int, int] | None:
    """A statement's box in whole pixels of the image, at least one; None where it asks for no mask.

    Edges go to the nearest pixel's: outwards, the boxes of small things would grow by a tenth and more.
    """
    box = box_to_fill(statement, image)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    left, right = _whole(x0, x1, image.width)
    top, bottom = _whole(y0, y1, image.height)
    return left, top, right, bottom


def _whole(low: float, high: float, end: int) -> tuple[int, int]:
    first = min(max(math.floor(low + 0.5), 0), end - 1)
    return first, max(first + 1, min(math.floor(high + 0.5), end))


def _ellipse(height: int, width: int, share: float = 1.0) -> Mask:
    """The ellipse that fills so much of each side of a box; of a box of up to 3 pixels, all of it."""
    y, x = (np.abs((np.arange(n) + 0.5) / n * 2 - 1) / share for n in (height, width))
    reach = np.where(y <= 1, np.sqrt(np.maximum(1 - y**2, 0)), -1)
    return np.asarray(x <= reach[:, None])


def _large_parts(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask (h, w) of 0 and 1 without its small parts; pixels that touch at a corner are one part."""
    import cv2

    _, parts, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = facts[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the background
    kept = areas >= max(1.0, _SMALLEST_PART * float(areas.max()))
    large: NDArray[np.uint8] = kept[parts].astype(np.uint8)
    return large


def _extent(mask: Mask) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of what is set, in pixel edges; `mask` is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _agreement(mask: Mask) -> float:
    """The share of the box that the mask's extent fills."""
    if not mask.any():
        return 0.0
    x0, y0, x1, y1 = _extent(mask)
    return (x1 - x0) * (y1 - y0) / mask.size
