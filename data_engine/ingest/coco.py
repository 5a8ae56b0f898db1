"""COCO's JSON, and Objects365's, which has the same layout: boxes, masks and captions by people.

The source is one such file (instances*.json, captions*.json, zhiyuan_objv2_*.json), or a folder that
holds one or several, in itself or under `annotations/`. Files of a folder are merged by `file_name`;
person_keypoints, stuff, panoptic and image_info files are passed over there, as they repeat others.

Images are looked for below the folder (of a JSON file: its own, or the one above `annotations/`): as
`file_name` says, under `images/`, then by the last two parts of the name, then by the last alone where
no two files bear it. A name never leads out of the folder. An image that is not there is a failure
(`missing`); image files that no JSON names are counted as ignored.

What becomes of an annotation, always with source `human`:
- box -> a region with the category's name (granularity `phrase`), clipped to the image;
- segmentation -> a mask row, child of the region, as COCO run lengths;
- caption -> a text, granularity `brief`;
- `iscrowd` 1 -> left out and counted: its box is around many things, so it is not one region;
- anything malformed (no finite box, unknown image or category) -> a failure of its own
  (`bad_annotation`); its neighbours stay.
Labels drawn on the stored pixels of an image that EXIF turns are turned with it (masks.Frame).
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from functools import partial
from itertools import chain, groupby
from pathlib import PurePosixPath
from typing import Any

import duckdb
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, SourceError
from data_engine.image import SUFFIXES, ImageInfo
from data_engine.ingest.folder import file_item
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.json_stream import array_elements
from data_engine.ingest.listing import (
    UNIT_FILES,
    File,
    chunks,
    join,
    kind,
    missing,
    one,
    parent,
    storable,
    walk,
)
from data_engine.ingest.masks import Frame
from data_engine.ingest.scratch import Inserts, rows_of, scratch
from data_engine.storage import resolve

NAME = "coco"

_REPEATS = ("person_keypoints", "stuff", "panoptic", "image_info")
_UNIT_CHARACTERS = 16 << 20
"""A unit ends early when its annotations get this long: masks can be."""


def detect(source: str) -> bool:
    found = kind(source)
    if found == "file":
        return source.lower().endswith(".json") and _looks_right(source)
    return found == "folder" and any(_looks_right(join(source, f.key)) for f in _jsons(source))


def identity(source: str) -> Iterator[Any]:
    root, jsons = _layout(source)
    for file in jsons:
        yield file.facts
    for file in walk(root):
        if file.suffix in SUFFIXES:
            yield file.facts


def units(source: str) -> Iterator[Unit]:
    root, jsons = _layout(source)
    with scratch() as db:
        crowds, categories = _load_jsons(db, root, jsons)
        ignored = _load_listing(db, root, jsons)
        _match(db)
        ignored += _one_number(db, "SELECT count(*) FROM files f ANTI JOIN found m ON m.key = f.key")
        left_out = {"crowd regions": crowds} if crowds else {}
        # Annotations of no image, and entries that are none, come first: they name no image to wait for.
        orphans = chunks(rows_of(db, "SELECT raw FROM orphans ORDER BY file, seq"), UNIT_FILES)
        whats: Iterator[dict[str, Any]] = chain(
            [{"ignored": ignored, "left_out": left_out}],
            ({"orphans": [raw for (raw,) in raws]} for raws in orphans),
            ({"root": root, "categories": categories, "images": i} for i in _by_unit(_images(db))),
        )
        for index, what in enumerate(whats):
            yield Unit(index, what)


def items(unit: Unit) -> Iterator[Item]:
    for raw in unit.what.get("orphans", ()):
        yield Item(_named(raw), error=ImageError("bad_annotation", f"of no image of the file: {raw[:200]}"))
    for image in unit.what.get("images", ()):
        name, key, size, entry = image["name"], image["key"], image["size"], json.loads(image["entry"])
        if key is None:
            yield Item(
                name, error=ImageError("missing", f"no file {name} below {unit.what['root']}, or several")
            )
            continue
        item = file_item(unit.what["root"], key, size)
        # A name that climbs out of its folder is no key to write files by.
        item.key = key if name.startswith("/") or ".." in name.split("/") else name
        item.metadata = {k: v for k, v in entry.items() if k not in ("file_name", "width", "height")}
        item.labels = partial(_labels, entry, image["said"], unit.what["categories"])
        yield item


def _labels(
    entry: dict[str, Any], said: list[tuple[int, str]], categories: list[dict[str, str]], info: ImageInfo
) -> list[Annotation | ImageError]:
    made: list[Annotation | ImageError] = []
    frame: Frame | ImageError
    try:
        frame = Frame.of(_size(entry.get("width")), _size(entry.get("height")), info)
    except ImageError as error:
        frame = error
    for file, raw in said:
        annotation = json.loads(raw)
        try:
            if isinstance(annotation.get("caption"), str):
                made.append(_caption(annotation["caption"]))
            elif isinstance(frame, ImageError):
                made.append(frame)
            else:
                made += _region(annotation, frame, categories[file])
        except ImageError as error:
            made.append(ImageError(error.reason, f"{_named(raw)}: {error}"))
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            made.append(ImageError("bad_annotation", f"{_named(raw)}: {type(error).__name__}: {error}"))
    return made


def _size(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _caption(text: str) -> Annotation:
    if not text.strip():
        raise ImageError("bad_annotation", "an empty caption")
    return Annotation("text", text.strip(), "brief", source="human")


def _region(
    annotation: dict[str, Any], frame: Frame, categories: dict[str, str]
) -> list[Annotation | ImageError]:
    category = _id(annotation.get("category_id"))
    if category not in categories:
        raise ImageError("bad_annotation", f"there is no category {category}")
    box = frame.box(annotation["bbox"])
    if box[2] <= box[0] or box[3] <= box[1]:
        raise ImageError("bad_annotation", f"the box {annotation['bbox']} covers nothing of the image")
    region = Annotation("region", categories[category], "phrase", box=box, source="human")
    if not annotation.get("segmentation"):
        return [region]
    try:
        mask = frame.mask(annotation["segmentation"])
    except (ImageError, TypeError, ValueError, KeyError, OverflowError) as error:
        return [region, ImageError("bad_annotation", f"annotation {annotation.get('id')}: mask: {error}")]
    return [region, Annotation("region", parent=region, box=box, mask=mask, source="human")]


def _id(value: Any) -> str:
    """Ids of images and categories are numbers in some files and strings in others."""
    return str(value).encode("utf-8", "replace").decode()


def _named(raw: str) -> str:
    """How a failure names an annotation: by its id."""
    annotation = json.loads(raw)
    return f"annotation {annotation.get('id')}" if isinstance(annotation, dict) else "annotation"


# --- The source's files ---------------------------------------------------------------------------


def _layout(source: str) -> tuple[str, list[File]]:
    """The folder of the images, and the JSON files by their keys in it."""
    found = kind(source)
    if found == "folder":
        jsons = [f for f in _jsons(source) if _looks_right(join(source, f.key))]
        if not jsons:
            raise SourceError(
                f"no COCO file in {source}",
                "put instances*.json in it or under annotations/, or give the file",
            )
        return source, jsons
    if found != "file":
        raise missing(source)
    folder, name = parent(source)
    above, last = parent(folder)
    file = one(source)
    if last == "annotations":
        return above, [File(f"{last}/{name}", file.size, file.mtime)]
    return folder, [file]


def _jsons(folder: str) -> list[File]:
    found = [f for f in walk(folder, depth=1) if f.suffix == ".json"]
    below = join(folder, "annotations")
    if kind(below) == "folder":
        found += [
            File(f"annotations/{f.key}", f.size, f.mtime) for f in walk(below, depth=1) if f.suffix == ".json"
        ]
    return [f for f in found if not f.name.startswith(_REPEATS)]


def _looks_right(uri: str) -> bool:
    """Whether a file begins as COCO's do: an object with a list of images, annotations or categories."""
    filesystem, path = resolve(uri)
    try:
        with filesystem.open_input_file(path) as file:
            head = bytes(file.read(1 << 16)).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    except OSError:
        return False
    lists = ('"images"', '"annotations"', '"categories"')
    return head.startswith("{") and any(f"{name}:[" in "".join(head.split()) for name in lists)


# --- Joining images, annotations and files: in DuckDB, since millions of them need not fit -----------


def _load_jsons(
    db: duckdb.DuckDBPyConnection, root: str, jsons: list[File]
) -> tuple[int, list[dict[str, str]]]:
    """Fill the tables `images` and `said`; gives the number of crowds and the categories of each file."""
    images = Inserts(db, "images", {"file": pa.int32(), "seq": pa.int64(), "id": pa.string(),
                                     "name": pa.string(), "look": pa.string(), "raw": pa.string()})  # fmt: skip
    said = Inserts(
        db, "said", {"file": pa.int32(), "seq": pa.int64(), "image": pa.string(), "raw": pa.string()}
    )
    crowds, categories = 0, []
    for number, file in enumerate(jsons):
        names: dict[str, str] = {}
        categories.append(names)
        filesystem, path = resolve(join(root, file.key))
        with (
            filesystem.open_input_file(path) as stream,
            io.TextIOWrapper(io.BufferedReader(stream, 1 << 20), encoding="utf-8-sig") as text,
        ):
            elements = array_elements(text, ("images", "annotations", "categories"), file.key)
            for seq, (array, value, raw) in enumerate(elements):
                if not isinstance(value, dict):
                    said.add(number, seq, None, raw)
                elif array == "categories":
                    names[_id(value.get("id"))] = str(value.get("name"))
                elif array == "images":
                    name = value.get("file_name")
                    if isinstance(name, str) and name and storable(name):
                        look = str(PurePosixPath(name.replace("\\", "/")))
                        images.add(number, seq, _id(value.get("id")), name, look, raw)
                    else:
                        said.add(number, seq, None, raw)
                elif value.get("iscrowd") in (1, True):
                    crowds += 1
                else:
                    said.add(number, seq, _id(value.get("image_id")), raw)
    images.flush()
    said.flush()
    return crowds, categories


def _load_listing(db: duckdb.DuckDBPyConnection, root: str, jsons: list[File]) -> int:
    """Fill the table `files` with the image files below the folder; gives the number of others."""
    files = Inserts(db, "files", {"key": pa.string(), "size": pa.int64(), "mtime": pa.int64()})
    ours = {f.key for f in jsons}
    ignored = 0
    for file in walk(root):
        if file.suffix not in SUFFIXES:
            ignored += file.key not in ours
            continue
        if storable(file.key):
            files.add(*file.facts)
        else:
            ignored += 1
    files.flush()
    return ignored


def _match(db: duckdb.DuckDBPyConnection) -> None:
    """Which file each named image is. Every step is one hash join on a unique side."""
    db.execute("""
        CREATE MACRO last(path, n) AS array_to_string(list_slice(string_split(path, '/'), -n, -1), '/');
        CREATE TABLE ids AS SELECT file, id, min(name) AS name FROM images GROUP BY file, id;
        CREATE TABLE entries AS
            SELECT name, min(look) AS look, min(file::HUGEINT * (1::HUGEINT << 60) + seq) AS place,
                   arg_min(raw, file::HUGEINT * (1::HUGEINT << 60) + seq) AS raw
            FROM images GROUP BY name;
        CREATE TABLE orphans AS SELECT s.* FROM said s ANTI JOIN ids i ON s.file = i.file AND s.image = i.id;
        CREATE TABLE by_two AS SELECT last(key, 2) AS tail, min(key) AS key FROM files GROUP BY 1 HAVING count(*) = 1;
        CREATE TABLE by_one AS SELECT last(key, 1) AS tail, min(key) AS key FROM files GROUP BY 1 HAVING count(*) = 1;
        CREATE TABLE found AS
            SELECT e.place, e.name, e.raw, f.key, f.size, f.mtime
            FROM entries e
            LEFT JOIN files a ON a.key = e.look
            LEFT JOIN files b ON b.key = 'images/' || e.look
            LEFT JOIN by_two c ON c.tail = last(e.look, 2) AND contains(e.look, '/')
            LEFT JOIN by_one d ON d.tail = last(e.look, 1)
            LEFT JOIN files f ON f.key = coalesce(a.key, b.key, c.key, d.key);
    """)


def _one_number(db: duckdb.DuckDBPyConnection, query: str) -> int:
    return int((db.execute(query).fetchone() or (0,))[0])


def _images(db: duckdb.DuckDBPyConnection) -> Iterator[dict[str, Any]]:
    """The named images in the order of the files, each with what is said of it."""
    rows = rows_of(
        db,
        """
        SELECT f.name, f.raw, f.key, f.size, f.mtime, s.file, s.raw AS said
        FROM found f
        LEFT JOIN ids i ON i.name = f.name
        LEFT JOIN said s ON s.file = i.file AND s.image = i.id
        ORDER BY f.place, s.file, s.seq
        """,
    )
    for (name, entry, key, size, mtime), group in groupby(rows, key=lambda row: row[:5]):
        said = [(file, raw) for *_, file, raw in group if raw is not None]
        yield {"name": name, "entry": entry, "key": key, "size": size, "mtime": mtime, "said": said}


def _by_unit(images: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    unit: list[dict[str, Any]] = []
    characters = 0
    for image in images:
        unit.append(image)
        characters += sum(len(raw) for _, raw in image["said"])
        if len(unit) == UNIT_FILES or characters > _UNIT_CHARACTERS:
            yield unit
            unit, characters = [], 0
    if unit:
        yield unit
