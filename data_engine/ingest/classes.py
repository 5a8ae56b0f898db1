"""One folder per class, as ImageNet and its 22k-class version have it: ROOT/<class>/*.JPEG.

Each image gets one annotation: kind text, granularity `class`, source `human` (people sorted the
images). Its text is the folder's name, or the words for it where ROOT holds LOC_synset_mapping.txt
or words.txt (`n01440764 tench, Tinca tinca`); then the id is kept in the metadata as `class_id`.

A folder is taken for this by itself only if it has at least two class folders, every image is
exactly one level down, and no folder is called like a split or a part (train, val, 0001, images2):
a wrong guess would label every image wrongly. `--format classes` says so for any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, SourceError
from data_engine.image import SUFFIXES, ImageInfo
from data_engine.image_bytes import ByteReader
from data_engine.ingest.folder import file_item, image_files
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.listing import join, kind, missing, walk

NAME = "classes"

_MAPPINGS = ("LOC_synset_mapping.txt", "words.txt")
_NO_CLASS = frozenset(
    [
        "train",
        "training",
        "val",
        "valid",
        "validation",
        "test",
        "testing",
        "dev",
        "split",
        "part",
        "shard",
        "batch",
        "chunk",
        "folder",
        "dir",
        "data",
        "image",
        "images",
        "img",
        "imgs",
        "photo",
        "photos",
        "picture",
        "pictures",
        "dcim",
        "annotations",
        "labels",
    ]
)


def detect(source: str) -> bool:
    if kind(source) != "folder":
        return False
    classes = set()
    for file in walk(source):
        if file.suffix in SUFFIXES:
            parts = file.key.split("/")
            # The first words of a name say whether it is a part's: train2017, part-03, images_a.
            word = re.match(r"[^\W\d_]*", parts[0])
            if len(parts) != 2 or word is None or word[0].lower() in _NO_CLASS:
                return False
            classes.add(parts[0])
    # A name such as 2021-05 is a date, no class; synset ids and "4x4" hold a letter.
    return len(classes) >= 2 and all(re.search(r"[^\W\d_]", name) for name in classes)


def units(source: str) -> Iterator[Unit]:
    if kind(source) != "folder":
        raise (
            missing(source)
            if not kind(source)
            else SourceError(
                f"{source} is a file; this format is a folder of class folders", "give the folder"
            )
        )
    words = _words(source)
    for index, (files, passed) in enumerate(image_files(source)):
        here = {name: words[name] for name in {f.key.split("/")[0] for f in files} if name in words}
        yield Unit(
            index,
            {"root": source, "files": [f.facts for f in files], "words": here, **passed},
        )


def items(unit: Unit) -> Iterator[Item]:
    words = unit.what["words"]
    for key, size, _ in unit.what["files"]:
        name, below, _ = key.partition("/")
        item = file_item(unit.what["root"], key, size)
        if below:
            item.labels = partial(_label, words.get(name, name))
            if name in words:
                item.metadata["class_id"] = name
        yield item


def _label(text: str, _: ImageInfo) -> list[Annotation]:
    return [Annotation("text", text, "class", source="human")]


def _words(source: str) -> dict[str, str]:
    """Words by synset id. The two files part id and words by a space and by a tab."""
    found: dict[str, str] = {}
    present = {file.name for file in walk(source, depth=1)}
    with ByteReader() as reader:
        for mapping in _MAPPINGS:
            if mapping not in present:
                continue
            try:
                text = reader.read(join(source, mapping), None, None).decode("utf-8-sig", "replace")
            except ImageError as error:
                raise SourceError(f"cannot read {mapping}: {error}", "mend or remove that file") from error
            for line in text.splitlines():
                name, _, words = line.strip().replace("\t", " ", 1).partition(" ")
                if words.strip():
                    found.setdefault(name, words.strip())
    return found
