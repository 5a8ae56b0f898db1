"""One call that trains any of the scenes' toy models, so that the command line need not know their modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError
from data_engine.scenes.world import World

SHIPPED: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "detector": {"steps": 4500, "images": 6000},
        "segmenter": {"steps": 4500, "images": 6000},
        "scorer": {"steps": 1400, "images": 4000},
        "florence2": {},
    }
)
"""How the models in the package were trained, besides the defaults of their modules (Florence-2: its STAGES)."""


def train(
    model: str,
    output: Path,
    minutes: float | None,
    seed: int,
    world: World,
    threads: int | None,
    evaluate_on: int,
) -> Iterator[str]:
    """Train for so many minutes, or as the shipped one was, and yield lines on what came out: `evaluate_on` unseen
    scenes of each world tell how good it is.

    Raises RecipeError for a model that is none of `SHIPPED`.
    """
    if model not in SHIPPED:
        raise RecipeError(
            f"there is no toy model {model!r}{did_you_mean(model, list(SHIPPED))}",
            f"choose from {', '.join(SHIPPED)}",
        )
    args: dict[str, Any] = dict(SHIPPED[model]) if minutes is None else {"minutes": minutes}
    args |= {"seed": seed, "world": world, "threads": threads, "evaluate_on": evaluate_on}
    quality: Any
    if model in ("detector", "segmenter"):
        from specialists.detector_training import train as train_yolo

        quality = train_yolo(output, task="detect" if model == "detector" else "segment", **args)
    elif model == "scorer":
        from specialists.scorer_training import train as train_scorer

        quality = train_scorer(output, **args)
    else:
        from specialists.florence2.scenes_stages import train_in_stages

        quality = train_in_stages(output, **args)
    yield f"{output}: {quality}"
