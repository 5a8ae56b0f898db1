"""One call that trains any of the scenes' toy models, so that the command line need not know their modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError
from data_engine.scenes.world import World

MINUTES = {"detector": 16.0, "segmenter": 16.0, "scorer": 8.0, "florence2": 60.0}
"""How long each of the shipped models was trained."""


def train(
    model: str, output: Path, minutes: float | None, seed: int, world: World, threads: int | None
) -> Iterator[str]:
    """Train a model and yield lines on what came out. Raises RecipeError for a model that is none of `MINUTES`."""
    if model not in MINUTES:
        raise RecipeError(
            f"there is no toy model {model!r}{did_you_mean(model, list(MINUTES))}",
            f"choose from {', '.join(MINUTES)}",
        )
    length = minutes or MINUTES[model]
    quality: Any
    if model in ("detector", "segmenter"):
        from specialists.detector_training import train as train_yolo

        task = "detect" if model == "detector" else "segment"
        quality = train_yolo(output, task, length, seed, world, threads=threads)
    elif model == "scorer":
        from specialists.scorer_training import train as train_scorer

        quality = train_scorer(output, length, seed, world, threads)
    else:
        from specialists.florence2.scenes_training import train as train_florence2

        quality = train_florence2(output, length, seed, world, threads)
    yield f"{output}: {quality}"
