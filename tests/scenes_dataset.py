"""A small data set of drawn scenes with their truth, and the smallest Florence-2 that learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.scenes.write import make_scenes

TINY: dict[str, Any] = {
    "side": 64, "embed_dim": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "patch_stride": [4, 2, 2, 1], "window": 4,
    "head_width": 16, "width": 32, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 64, "words": 300,
}  # fmt: skip


def scenes_dataset(folder: Path, count: int = 14, shard_size: int = 4) -> Dataset:
    """`count` scenes of 160 x 120 pixels in `folder`; what is true of them is the source `truth`."""
    make_scenes(folder / "scenes", count, 7, (160, 120))
    ingest(str(folder / "scenes"), str(folder / "dataset"), shard_size=shard_size)
    return Dataset.open(str(folder / "dataset"))
