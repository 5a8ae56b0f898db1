"""A student's likelihoods without a student: they tell right statements from wrong ones, but not always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.image import Image
from data_engine.overlap import iou
from data_engine.quality.text import normalised

VERSION = 1


class Doubts:
    """Likelihoods of the statements of `sources`, by what the source `truth` says; a share `wrong` is drawn."""

    needs_pixels = False

    def __init__(self, sources: list[str], truth: str = "truth", wrong: float = 0.05) -> None:
        self.sources = sources
        self.truth = truth
        self.wrong = wrong

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        rows = [] if said is None else said.to_pylist()
        return [
            self._image(image, [row for row in rows if row["image_id"] == image.image_id]) for image in images
        ]

    def _image(self, image: Image, rows: list[dict[str, Any]]) -> list[Annotation]:
        truth = [row for row in rows if row["source"] == self.truth]
        made = []
        for row in rows:
            if row["source"] not in self.sources or row["mask"] is not None or row["text"] is None:
                continue
            rng = np.random.default_rng(int(row["annotation_id"][:15], 16))
            for measure, value in _likelihoods(row, truth).items():
                drawn = rng.random() if rng.random() < self.wrong else value * rng.uniform(0.7, 1)
                made.append(Annotation(row["kind"], None, measure, row["annotation_id"], score=drawn))
        return made


def _likelihoods(row: dict[str, Any], truth: list[dict[str, Any]]) -> dict[str, float]:
    if row["kind"] == "text":
        right = any(t["kind"] == "text" and normalised(t["text"]) == normalised(row["text"]) for t in truth)
        return {"told": 0.8 if right else 0.2}
    there = [
        t
        for t in truth
        if t["kind"] == row["kind"] and t["mask"] is None and t["granularity"] == row["granularity"]
    ]
    if not there or row["box"] is None:
        return {}
    overlap = iou(np.array([row["box"]], float), np.array([t["box"] for t in there], float))[0]
    named = [overlap[i] for i, t in enumerate(there) if t["text"] == row["text"]]
    if row["kind"] == "phrase":
        return {"located": max(named, default=0.0) ** 2}
    best = there[int(overlap.argmax())]
    return {
        "named": 1.0 if best["text"] == row["text"] and overlap.max() > 0.1 else 0.05,
        "located": max(named, default=0.0) ** 2,
    }
