"""Drawn scenes as an image-text model learns from them and is judged by them: pictures, things, texts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from data_engine.scenes.scene import training_seed
from data_engine.scenes.world import World
from data_engine.scenes.write import TRUTH, make_scenes


@dataclass(frozen=True)
class Thing:
    """A region of the truth. `phrases` are those of captions that name it, such as "the red stars"."""

    box: tuple[float, float, float, float]
    category: str
    description: str
    phrases: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Picture:
    """One scene as it is stored: JPEG's traces are part of it."""

    pixels: np.ndarray
    captions: tuple[str, ...]
    """Brief, detailed and more detailed."""
    things: tuple[Thing, ...]


def draw(images: int, seed: int, world: World, workers: int) -> Iterator[Picture]:
    """Training scenes: half of them 320 x 240 pixels, a quarter 240 x 320, a quarter 320 x 320."""
    quarter = images // 4
    start = 0
    for size, count in (((320, 240), images - 2 * quarter), ((240, 320), quarter), ((320, 320), quarter)):
        yield from scenes(count, training_seed(seed), world, size, start, workers)
        start += count


def scenes(
    count: int, seed: int, world: World, size: tuple[int, int], start: int = 0, workers: int = 1
) -> Iterator[Picture]:
    """Scenes `start` to `start + count - 1` of a seed, `size` (width, height), read back from their files.

    All are drawn at the first; one is in memory at a time.
    """
    with tempfile.TemporaryDirectory(prefix="fde-scenes-") as temporary:
        folder = Path(temporary)
        make_scenes(folder, count, seed, size, start, workers, world)
        with (folder / TRUTH).open(encoding="utf-8") as lines:
            for line in lines:
                yield _picture(folder, json.loads(line))


def _picture(folder: Path, truth: dict[str, Any]) -> Picture:
    with PIL.Image.open(folder / truth["file"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    rows = truth["annotations"]
    described = {
        row["parent"]: row["text"]
        for row in rows
        if row["kind"] == "region" and row.get("granularity") == "brief"
    }
    phrases: dict[tuple[float, ...], list[str]] = {}
    for row in rows:
        if row["kind"] == "phrase" and row.get("text"):
            phrases.setdefault(tuple(row["box"]), []).append(row["text"])
    things = tuple(
        Thing(
            tuple(row["box"]),
            row["text"],
            described[at],
            tuple(dict.fromkeys(phrases.get(tuple(row["box"]), ()))),
        )
        for at, row in enumerate(rows)
        if row["kind"] == "region" and row.get("granularity") == "phrase"
    )
    captions = tuple(row["text"] for row in rows if row["kind"] == "text" and row.get("granularity") != "ocr")
    return Picture(pixels, captions, things)
