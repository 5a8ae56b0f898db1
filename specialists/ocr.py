"""Text in images: a quad, the words and a score for each line, by PP-OCRv6 run with onnxruntime.

FLD-5B's text regions come from an OCR service (arXiv 2311.06242, section 4.1). The models here (a DB
text detector, an up-or-down classifier and a CTC recogniser) come inside the package rapidocr, so that
nothing is downloaded. Reading runs on the CPU.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import MissingPackageError, ModelLoadError, RecipeError
from data_engine.image import Image

VERSION = 1

_MODELS = {
    "Det.model_path": "PP-OCRv6_det_small.onnx",
    "Cls.model_path": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec.model_path": "PP-OCRv6_rec_small.onnx",
}

_MOST_ELONGATED = 4
"""The detector enlarges the short side to 736 pixels: a 10 x 2000 strip would become 736 x 147,200."""

_SMALLEST_SIDE = 32

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    text: str
    score: float
    quad: Floats
    """(4, 2): clockwise as the text stands, from its own top left, in pixels of the image."""


class Ocr:
    """Regions of granularity `ocr`: a line's text, quad, bounding box and score, in reading order.

    - `minimum_score`: lines that the recogniser is less sure of are left out (0.5 is rapidocr's default;
      the score is the mean probability of the line's characters).
    - `box_threshold`: how sure the detector must be that there is text.
    - `max_side`: images with a longer side are shrunk to it before the text is looked for.
    - `short_side`: images with a shorter short side are enlarged to it to find text (736 is rapidocr's
      default, for text of a few pixels); less is faster in proportion to the area.
    - `threads`: by default OMP_NUM_THREADS, which Ray sets to the actor's share, or else all cores.

    Text may stand at any angle, also upside down: the quad begins at the text's own top left. Reading
    order is taken in the direction in which most of the text runs: lines from top to bottom, and what
    stands on one line from left to right.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        minimum_score: float = 0.5,
        box_threshold: float = 0.5,
        max_side: int = 2000,
        short_side: int = 736,
        threads: int | None = None,
    ) -> None:
        try:
            import cv2
            import rapidocr
        except ImportError as error:
            raise MissingPackageError.of(error.name or "rapidocr", "ocr") from error
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingPackageError.of("onnxruntime", "ocr")
        for name, value in (("minimum_score", minimum_score), ("box_threshold", box_threshold)):
            if not 0 <= value <= 1:
                raise RecipeError(f"{name} is {value}", "it must lie in 0..1")
        if min(max_side, short_side) < 64 or (threads is not None and threads < 1):
            raise RecipeError("max_side and short_side must be at least 64, threads at least 1", "raise them")
        self.minimum_score = minimum_score
        self.max_side = max_side
        threads = threads or _thread_share()
        cv2.setNumThreads(threads)
        folder = Path(rapidocr.__file__).parent / "models"
        # Paths are given, since a model that the library misses it would download.
        models = {key: str(folder / name) for key, name in _MODELS.items()}
        for path in models.values():
            if not Path(path).is_file():
                raise ModelLoadError(
                    f"rapidocr is installed without {Path(path).name}", "install rapidocr 3.10 from its wheel"
                )
        try:
            self.engine: Any = rapidocr.RapidOCR(
                params={
                    "Global.log_level": "critical",
                    "Global.use_vertical_padding": False,
                    "Det.box_thresh": box_threshold,
                    "Det.limit_type": "min",
                    "Det.limit_side_len": short_side,
                    "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                    **models,
                }
            )
            self._lines(np.full((64, 256, 3), 255, np.uint8))  # loads the detector
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelLoadError(
                f"cannot load rapidocr's models: {reason}", "install rapidocr and onnxruntime again"
            ) from error

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One list per image, in reading order; empty where there is no text."""
        # The library takes arrays as OpenCV reads them: blue first.
        return [self._regions(image, np.ascontiguousarray(image.pixels[..., ::-1])) for image in images]

    def _regions(self, image: Image, pixels: NDArray[np.uint8]) -> list[Annotation]:
        made: list[Annotation] = []
        lines = [line for line in self._lines(pixels) if line.score >= self.minimum_score and line.text]
        for line in (lines[i] for i in reading_order([line.quad for line in lines])):
            # A quad may reach into the padding.
            quad = np.clip(line.quad, 0, (image.width, image.height))
            x0, y0 = quad.min(axis=0).tolist()
            x1, y1 = quad.max(axis=0).tolist()
            if x1 > x0 and y1 > y0:
                made.append(
                    Annotation(
                        "region",
                        line.text,
                        "ocr",
                        box=(x0, y0, x1, y1),
                        quad=quad.ravel().tolist(),
                        score=min(line.score, 1.0),
                    )
                )
        return made

    def _lines(self, pixels: NDArray[np.uint8]) -> list[_Line]:
        """The library's three steps, taken one by one: it does not say which lines stood upside down."""
        from rapidocr.main import RapidOCRError

        seen, scale, shift = _fitted(pixels, self.max_side)
        try:
            crops, found = self.engine.detect_and_crop(seen, {})
        except RapidOCRError:
            return []  # it found no text
        upright, judged = self.engine.cls_and_rotate(crops)
        read = self.engine.recognize_txt(upright)
        sure = self.engine.text_cls.cls_thresh
        lines = []
        for quad, (label, certainty), text, score in zip(
            found.boxes, judged.cls_res, read.txts, read.scores, strict=True
        ):
            first = int(_runs_down(quad)) + (2 if "180" in label and certainty > sure else 0)
            corners = (np.roll(quad, -first, axis=0) - shift) * scale
            lines.append(_Line(text.strip(), float(score), corners.astype(np.float32)))
        return lines


def reading_order(quads: Sequence[Floats]) -> list[int]:
    """The order in which a person reads quads (4, 2), each from its own top left: their indices.

    "Right" is the way in which most of the text runs, by length. Two quads stand on one line if the
    lower begins above the middle of the line's first; lines go down, and along a line quads go right.
    """
    if not len(quads):
        return []
    corners = np.stack(quads).astype(np.float64)
    right = (corners[:, 1] - corners[:, 0]).sum(axis=0)
    length = float(np.hypot(*right))
    right = right / length if length > 0 else np.array([1.0, 0.0])
    down = np.array([-right[1], right[0]])
    along, across = corners @ right, corners @ down
    left, top, bottom = along.min(axis=1), across.min(axis=1), across.max(axis=1)
    middle = (top + bottom) / 2
    lines: list[list[int]] = []
    for i in np.argsort(middle, kind="stable").tolist():
        if lines and top[i] < middle[lines[-1][0]]:
            lines[-1].append(i)
        else:
            lines.append([i])
    return [i for line in lines for i in sorted(line, key=lambda i: left[i])]


def _thread_share() -> int:
    """The cores that this process may use, as Ray and OpenMP programs are told."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    here = os.cpu_count() or 1
    return min(int(told), here) if told.isdigit() and int(told) else here


def _fitted(pixels: NDArray[np.uint8], max_side: int) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """The picture shrunk to `max_side` and padded on both sides where it is too thin or too small.

    A point in it, less the shift, times the scale, is the point (x, y) in the original.
    """
    import cv2

    height, width = pixels.shape[:2]
    shrink = min(1.0, max_side / max(height, width))
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    seen_height, seen_width = pixels.shape[:2]
    least = max(_SMALLEST_SIDE, max(seen_height, seen_width) // _MOST_ELONGATED)
    above, beside = max(0, least - seen_height), max(0, least - seen_width)
    if above or beside:
        # More of the same edge, so that no border appears which could be taken for a letter.
        pixels = cv2.copyMakeBorder(
            pixels,
            above // 2,
            above - above // 2,
            beside // 2,
            beside - beside // 2,
            cv2.BORDER_REPLICATE,
        ).astype(np.uint8)
    scale = np.array([width / seen_width, height / seen_height], np.float32)
    return pixels, scale, np.array([beside // 2, above // 2], np.float32)


def _runs_down(quad: Floats) -> bool:
    """Whether the library turns the crop of this quad a quarter to the left: text that runs downwards."""
    lengths = np.linalg.norm(quad - np.roll(quad, -1, axis=0), axis=1)
    width, height = int(max(lengths[0], lengths[2])), int(max(lengths[1], lengths[3]))
    return height / max(width, 1) >= 1.5
