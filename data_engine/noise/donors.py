"""Captions of other images, for swapped ones. They come from a bank, so that no batch decides which there are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from data_engine.errors import RecipeError
from data_engine.noise.captions import GRANULARITIES
from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import WORLDS, find_world

_SCENES = 40
_SEED = 777_777
"""Of no data set and of no training."""


def donor_bank(donors: str | Sequence[str]) -> tuple[str, ...]:
    """Captions given as they are, or by a world's name (drawn scenes of it), or in a file: the column `text` of
    a `.csv`, one a line in any other.

    Raises RecipeError for a file that cannot be read or has no such column.
    """
    if not isinstance(donors, str):
        return tuple(donors)
    if donors in WORLDS:
        return _of_scenes(donors)
    try:
        with Path(donors).open(encoding="utf-8", newline="") as file:
            lines = [row["text"] for row in csv.DictReader(file)] if donors.endswith(".csv") else list(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(
            f"donors: cannot read {donors!r}: {error}",
            f"name a text file with a caption a line, or one of {', '.join(WORLDS)}",
        ) from error
    except KeyError as error:
        raise RecipeError(
            f"donors: {donors!r} has no column {error}", "name it in the file's first line"
        ) from error
    return tuple(dict.fromkeys(line.strip() for line in lines if line and line.strip()))


@lru_cache(maxsize=4)
def _of_scenes(world: str) -> tuple[str, ...]:
    texts = (
        row.text
        for index in range(_SCENES)
        for row in make_scene(_SEED, index, world=find_world(world)).annotations
        if row.kind == "text" and row.granularity in GRANULARITIES and row.text
    )
    return tuple(dict.fromkeys(texts))
