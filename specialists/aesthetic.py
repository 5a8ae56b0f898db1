"""How much people would like a picture: a head over a CLIP's image feature, trained on their ratings.

LAION chose its aesthetic subsets of LAION-5B so: laion-aesthetic lies above 7 by the first head, laion-art above
8 (github.com/LAION-AI/laion-datasets, laion-aesthetic.md). No head comes with the project: it is a file that
you give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, ModelLoadError
from data_engine.image import Image
from specialists.aesthetic_head import apply_head, load_head
from specialists.clip_model import ClipModel

VERSION = 1

_ASKED = 32
"""Pixels of the plain picture by which a model is asked how many numbers its features have."""


class Aesthetic:
    """A row of kind `image` and granularity `aesthetic` for every image; its text is the number.

    The published scales go up to 10, beyond a score's 0..1; `filters.measure:Measure` takes the text for a
    number.

    - `head`: the file of the head, in safetensors or as torch writes it (specialists.aesthetic_head says
      which are known).
    - `model`, `pretrained`, `device`, `dtype`, `max_batch`: the CLIP that the head was trained on, as ClipModel
      takes it. Both published heads of 768 numbers are for OpenAI's ViT-L/14, v1's of 512 for its ViT-B/32
      (`ViT-B-32`).

    Raises RecipeError, MissingPackageError, or ModelLoadError, also where the head is for features of another
    size than the model's.
    """

    def __init__(
        self,
        head: str,
        model: str = "ViT-L-14",
        pretrained: str | None = "openai",
        device: str | None = None,
        dtype: str = "auto",
        max_batch: int = 64,
    ) -> None:
        path = Path(head).expanduser()
        self.head = load_head(path)  # before the model, which may be a download
        self.clip = ClipModel(model, pretrained, device, dtype, max_batch, texts=False)
        plain = Image("0" * 32, np.zeros((_ASKED, _ASKED, 3), np.uint8))
        wanted, width = self.head[0][0].shape[1], self.clip.whole_image_features([plain]).shape[1]
        if wanted != width:
            raise ModelLoadError(
                f"the head {path} is for features of {wanted} numbers, the model {model} makes {width}",
                "give as `model` and `pretrained` the CLIP that the head was trained on",
            )

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """One row per image."""
        if not images:
            return []
        numbers: list[float] = apply_head(self.head, self.clip.whole_image_features(images)).tolist()
        return [[_row(number)] for number in numbers]


def _row(number: float) -> Annotation | ImageError:
    if not math.isfinite(number):  # half precision that overflowed
        return ImageError("bad_annotation", f"the head gave {number}")
    return Annotation("image", f"{number:.3f}", "aesthetic")
