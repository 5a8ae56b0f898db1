"""Another specialist, asked about held-out images alone: what a round of refinement is judged by costs little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.entry_point import load
from data_engine.errors import ImageError
from data_engine.held_out import is_held_out
from data_engine.image import Image
from data_engine.specialist import Specialist

VERSION = 1


class HeldOut:
    """Says what the specialist `use` with `args` says of the share `held_out` of the images, and nothing of
    others. `version` is that of its code, which fingerprints cannot see in here."""

    def __init__(self, use: str, args: Mapping[str, Any], held_out: float, version: str = "") -> None:
        self.asked: Specialist = load(use, dict(args), "refine")
        self.held_out = held_out
        self.needs_pixels = getattr(self.asked, "needs_pixels", True)

    def __call__(
        self, images: Sequence[Image], said: pa.Table | None
    ) -> Sequence[Sequence[Annotation | ImageError]]:
        answers: list[Sequence[Annotation | ImageError]] = [[] for _ in images]
        ids = pa.array([image.image_id for image in images], pa.string())
        places: list[int] = np.flatnonzero(is_held_out(ids, self.held_out)).tolist()
        if not places:
            return answers
        about = said
        if said is not None:
            about = said.filter(pc.is_in(said["image_id"], value_set=ids.take(pa.array(places))))
        found = self.asked([images[place] for place in places], about)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
        return answers
