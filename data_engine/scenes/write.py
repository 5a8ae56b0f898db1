"""Folders of scenes: images, one line of truth per image, and a manifest that says what they are.

    FOLDER/images/000000.jpg   named by the scene's index
    FOLDER/truth.jsonl         one object per image: file, width, height, annotations
    FOLDER/scenes.json         the manifest; scenes.json.part until all else is written

The same arguments give the same bytes (with the same build of Pillow's JPEG encoder).
"""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError
from data_engine.scenes.scene import check_scenes, make_scene
from data_engine.scenes.world import PRETRAINING, World, find_world
from data_engine.storage import storage_errors

GENERATOR = 3
"""Raised when the same seed no longer gives the same scenes."""

FORMAT = "fde-scenes"
MANIFEST, TRUTH, IMAGES = "scenes.json", "truth.jsonl", "images"
UNFINISHED = f"{MANIFEST}.part"
"""The manifest's name while scenes are drawn."""

_CHUNK = 100


def make_scenes(
    folder: Path,
    count: int,
    seed: int,
    size: tuple[int, int] = (320, 240),
    start: int = 0,
    workers: int = 1,
    world: World = PRETRAINING,
) -> None:
    """Write scenes `start` to `start + count - 1` of a seed in a world; `size` is (width, height) in pixels.

    With several workers the scenes are drawn in as many processes. Scenes that the folder already has are replaced,
    all of them. Raises RecipeError for arguments that make no scenes and for a folder with other images or truth, before
    anything is touched, and StorageError when the folder cannot be written.
    """
    if count < 1 or start < 0 or workers < 1:
        raise RecipeError(
            f"cannot make {count} scenes from {start} with {workers} workers",
            "count and workers are 1 or more, start is 0 or more",
        )
    check_scenes(seed, start, size)
    manifest = {
        "format": FORMAT,
        "generator": GENERATOR,
        "world": world.name,
        "count": count,
        "seed": seed,
        "start": start,
        "size": list(size),
        "class_names": list(world.class_names),
    }
    folder = Path(folder)
    with storage_errors(str(folder)):
        _check_ours(folder)
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        (folder / MANIFEST).unlink(missing_ok=True)
        for image in (folder / IMAGES).glob("*.jpg"):
            if image.stem.isdecimal() and not start <= int(image.stem) < start + count:
                image.unlink()
        with (folder / TRUTH).open("w", encoding="utf-8", newline="\n") as truth:
            for lines in _chunks(folder, count, seed, size, start, workers, world):
                truth.writelines(lines)
        (folder / UNFINISHED).replace(folder / MANIFEST)


def _check_ours(folder: Path) -> None:
    """Raises RecipeError for what lies where scenes would, unless a manifest says that it is scenes."""
    if any((folder / name).is_file() for name in (MANIFEST, UNFINISHED)):
        return
    if (folder / TRUTH).exists() or ((folder / IMAGES).is_dir() and any((folder / IMAGES).iterdir())):
        raise RecipeError(f"{folder} holds images or truth that are no scenes", "give a new folder")


def file_name(index: int) -> str:
    return f"{IMAGES}/{index:06d}.jpg"


def as_dicts(annotations: Sequence[Annotation]) -> list[dict[str, Any]]:
    """Annotations as plain dicts without empty fields; `parent` is a position in the list.

    Every parent must stand in the list before its child.
    """
    places: dict[int, int] = {}
    dicts: list[dict[str, Any]] = []
    for place, a in enumerate(annotations):
        parent = places[id(a.parent)] if isinstance(a.parent, Annotation) else a.parent
        fields = {
            "kind": a.kind,
            "granularity": a.granularity,
            "text": a.text,
            "parent": parent,
            "span": None if a.span is None else list(a.span),
            "box": None if a.box is None else list(a.box),
            "quad": None if a.quad is None else list(a.quad),
            "mask": a.mask,
            "score": a.score,
            "source": a.source,
        }
        dicts.append({key: value for key, value in fields.items() if value is not None})
        places[id(a)] = place
    return dicts


def from_dicts(dicts: Sequence[dict[str, Any]]) -> list[Annotation]:
    """The reverse of `as_dicts`.

    Raises KeyError, TypeError, ValueError, IndexError or AttributeError for data that it did not make.
    """
    made: list[Annotation] = []
    for fields in dicts:
        parent = fields.get("parent")
        if parent is not None and not 0 <= parent < len(made):
            raise IndexError(f"parent {parent} does not stand before row {len(made)}")
        span = fields.get("span")
        made.append(
            Annotation(
                fields["kind"],
                fields.get("text"),
                fields.get("granularity"),
                None if parent is None else made[parent],
                None if span is None else (int(span[0]), int(span[1])),
                fields.get("box"),
                fields.get("quad"),
                fields.get("mask"),
                fields.get("score"),
                fields.get("source"),
            )
        )
    return made


def _chunks(
    folder: Path, count: int, seed: int, size: tuple[int, int], start: int, workers: int, world: World
) -> Iterator[list[str]]:
    """Lines of truth, chunk by chunk and in order, while the images are written."""
    draw = functools.partial(_draw, folder, seed, size, world.name)
    starts = range(start, start + count, _CHUNK)
    stops = [min(first + _CHUNK, start + count) for first in starts]
    if workers == 1 or len(starts) == 1:
        yield from map(draw, starts, stops)
        return
    # Spawned rather than forked: a fork of a process with threads (a Ray driver, torch) may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, starts, stops)


def _draw(folder: Path, seed: int, size: tuple[int, int], world: str, first: int, stop: int) -> list[str]:
    lines = []
    for index in range(first, stop):
        scene = make_scene(seed, index, size, find_world(world))
        (folder / file_name(index)).write_bytes(scene.jpeg())
        line = {
            "file": file_name(index),
            "width": size[0],
            "height": size[1],
            "annotations": as_dicts(scene.annotations),
        }
        lines.append(json.dumps(line, separators=(",", ":")) + "\n")
    return lines
