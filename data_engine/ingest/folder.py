"""A folder of images, at any depth; or one image file.

The key is the path below the folder. A file with an image suffix that holds no image becomes a
failure; pictures in formats that are not read are counted as left out, other files as ignored; hidden files are
not looked at.
There are no labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from data_engine.errors import ImageError
from data_engine.image import OTHER_SUFFIXES, SUFFIXES
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.listing import UNIT_FILES, File, join, kind, missing, one, parent, storable, walk

NAME = "folder"


def detect(source: str) -> bool:
    found = kind(source)
    if found == "file":
        return one(source).suffix in SUFFIXES
    return found == "folder" and any(file.suffix in SUFFIXES for file in walk(source))


def units(source: str) -> Iterator[Unit]:
    found = kind(source)
    if found == "file":
        yield Unit(0, {"root": parent(source)[0], "files": [one(source).facts], "ignored": 0})
    elif found == "folder":
        for index, (files, passed) in enumerate(image_files(source)):
            yield Unit(index, {"root": source, "files": [f.facts for f in files], **passed})
    else:
        raise missing(source)


def items(unit: Unit) -> Iterator[Item]:
    for key, size, _ in unit.what["files"]:
        yield file_item(unit.what["root"], key, size)


def image_files(folder: str) -> Iterator[tuple[list[File], dict[str, Any]]]:
    """The images of a folder by the thousand, each time with the entries of `Unit.what` on files passed over."""
    images: list[File] = []
    ignored, left_out = 0, Counter[str]()
    for file in walk(folder):
        if file.suffix in SUFFIXES:
            images.append(file)
        elif file.suffix in OTHER_SUFFIXES:
            left_out[f"{file.suffix} files (not a format that is read)"] += 1
        else:
            ignored += 1
        if len(images) == UNIT_FILES:
            yield images, {"ignored": ignored, "left_out": dict(left_out)}
            images, ignored, left_out = [], 0, Counter()
    if images or ignored or left_out:
        yield images, {"ignored": ignored, "left_out": dict(left_out)}


def file_item(root: str, key: str, size: int | None, **more: Any) -> Item:
    """The item of an image that is a file of its own."""
    if not storable(key):
        bad = ImageError("bad_name", "the file's name is not UTF-8, so it cannot be written down: rename it")
        return Item(key, error=bad)
    return Item(key, join(root, key), length=size, **more)
