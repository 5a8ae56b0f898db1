"""A folder of drawn scenes (data_engine.scenes.write): images, truth.jsonl and scenes.json.

The key is the image's path below the folder, such as `images/000042.jpg`. The labels are the scene's
whole truth, with the source `truth`. A line that cannot be used becomes a failure of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, NewerFormatError, SourceError
from data_engine.image import ImageInfo
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.listing import join, kind, missing
from data_engine.scenes.write import FORMAT, GENERATOR, MANIFEST, TRUTH, UNFINISHED, from_dicts
from data_engine.storage import AHEAD_BYTES, resolve

NAME = "scenes"

UNIT_IMAGES = 500


def detect(source: str) -> bool:
    # Without the unfinished ones their images would pass for images without truth.
    return kind(source) == "folder" and any(
        kind(join(source, name)) == "file" for name in (MANIFEST, UNFINISHED)
    )


def units(source: str) -> Iterator[Unit]:
    """Ranges of lines of the truth; their digest is part of each unit, so that other scenes are seen as such.

    Raises SourceError for a folder that is not scenes, or not finished, and NewerFormatError for scenes
    of a later version.
    """
    if kind(source) != "folder":
        raise missing(source)
    if kind(join(source, UNFINISHED)) == "file":
        raise SourceError(f"the scenes in {source} are not finished", "make them again, and let that end")
    count = _manifest(source)["count"]
    found = 0
    with _opened(source, TRUTH) as file:
        offset = 0
        while lines := list(islice(file, UNIT_IMAGES)):
            part = b"".join(lines)
            what = {
                "root": source,
                "offset": offset,
                "length": len(part),
                "line": found + 1,
                "digest": hashlib.sha256(part).hexdigest(),
            }
            yield Unit(found // UNIT_IMAGES, what)
            offset += len(part)
            found += len(lines)
    if found != count:
        raise SourceError(
            f"{join(source, TRUTH)} holds {found:,} scenes where {MANIFEST} says {count!r}",
            "make the scenes again",
        )


def items(unit: Unit) -> Iterator[Item]:
    root, first = unit.what["root"], unit.what["line"]
    with _opened(root, TRUTH) as file:
        file.seek(unit.what["offset"])
        part = file.read(unit.what["length"])
    for number, line in enumerate(part.splitlines(), start=first):
        yield _item(root, line, number)


def _item(root: str, line: bytes, number: int) -> Item:
    try:
        truth = json.loads(line)
        name, size = str(truth["file"]), (int(truth["width"]), int(truth["height"]))
        said = truth["annotations"]
        if not isinstance(said, list):
            raise TypeError("its annotations are no list")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        problem = ImageError("bad_annotation", f"line {number} of {TRUTH} is no scene: {error}")
        return Item(f"{TRUTH}:{number}", error=problem)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return Item(name, error=ImageError("unsafe_member", f"{name!r} lies outside of the folder"))
    return Item(name, join(root, name), labels=partial(_labels, size, said))


def _labels(size: tuple[int, int], said: list[dict[str, Any]], info: ImageInfo) -> list[Annotation]:
    if size != (info.width, info.height):
        raise ImageError(
            "bad_annotation",
            f"the truth is for {size[0]} x {size[1]} pixels, the image has {info.width} x {info.height}",
        )
    return from_dicts(said)


def _manifest(source: str) -> dict[str, Any]:
    where = join(source, MANIFEST)
    try:
        with _opened(source, MANIFEST) as file:
            manifest = json.loads(file.read())
        name, generator, count = manifest["format"], int(manifest["generator"]), int(manifest["count"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{where} describes no scenes: {error}", "make the scenes again") from error
    if name != FORMAT:
        raise SourceError(f"{where} has the format {name!r}, not {FORMAT!r}", "make the scenes again")
    if generator > GENERATOR:
        raise NewerFormatError(
            f"{where} was written by generator {generator}; this version reads up to {GENERATOR}",
            "upgrade with: pip install -U florence-data-engine",
        )
    return {**manifest, "count": count}


def _opened(source: str, name: str) -> io.BufferedReader:
    where = join(source, name)
    filesystem, path = resolve(where)
    try:
        return io.BufferedReader(filesystem.open_input_file(path), AHEAD_BYTES)
    except OSError as error:
        raise SourceError(f"cannot read {where}: {error}", "make the scenes again") from error
