"""A specialist with weights: a text file, of which it says each line of every picture."""

from __future__ import annotations

from pathlib import Path

from data_engine.annotation import Annotation

VERSION = 1


class Weighs:
    def __init__(self, weights: str):
        path = Path(weights)
        self.lines = (path / "weights.txt" if path.is_dir() else path).read_text().splitlines()

    def __call__(self, images, said):
        return [[Annotation("text", line, "brief") for line in self.lines] for _ in images]
