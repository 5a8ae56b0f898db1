"""Parquet with an image column, as the `datasets` library writes it: struct<bytes, path>, or plain binary.

The source is a folder of such files, one file, or a pattern (`data/train-*.parquet`). The bytes lie
compressed in pages and have no address, so these images are always copied into the data set.

The image column is the one that the `datasets` metadata calls an image, else one called image, img,
jpg, png, webp, picture, photo or bytes, else the first that holds bytes; further ones are not read.

- columns `caption`, `captions`, `text`, `TEXT`, `alt_text`, `alt` (string, or list of strings: one
  text each) -> texts, granularity `brief`, source `alt_text`: the file does not say who wrote them.
- columns that the `datasets` metadata calls a ClassLabel -> a text of granularity `class`, source
  `human`; -1 means no label.
- all other columns without bytes -> metadata.

A file without an image column is passed over where others have one. A damaged file is one failure
(`broken_archive`); rows read before the damage stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, SourceError
from data_engine.image import SUFFIXES, ImageInfo
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.listing import LOOKED_AT, UNIT_FILES, File, join, kind, select, walk
from data_engine.storage import resolve

NAME = "parquet"

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "bytes")
_TEXT_NAMES = ("caption", "captions", "text", "TEXT", "alt_text", "alt")
_ROWS = 1
"""Rows in memory at a time. One value of a file's dictionary may stand in every row: sixteen rows of a file of a
kilobyte can be as many gigabytes. Read one by one they cost a tenth of a millisecond each."""


def detect(source: str) -> bool:
    if kind(source) != "folder":
        return source.lower().endswith(".parquet")
    first = next((f for f in islice(walk(source), LOOKED_AT) if f.suffix == ".parquet"), None)
    if first is None:
        return False
    try:
        with _open(join(source, first.key)) as file:
            if _image_column(file.schema_arrow) is not None:
                return True
    except (pa.ArrowException, OSError):
        return True
    # A table beside photographs is no reason to read the folder as tables; where there is nothing
    # else, `units` says which columns the files have.
    return not any(f.suffix in SUFFIXES for f in walk(source))


def units(source: str) -> Iterator[Unit]:
    root, files = select(source, (".parquet",))
    first = ""
    index = ignored = 0
    held: dict[str, Any] | None = None
    for file in files:
        for what in _whats(root, file):
            if "columns" in what:
                ignored += 1
                first = first or f"{file.key} holds no column of images; its columns are {what['columns']}"
                continue
            if held is not None:
                yield Unit(index, held)
                index += 1
            held = what
    if held is None:
        raise SourceError(
            first or f"there is no .parquet file in {source}",
            "images must be a binary column, or a struct with `bytes` as the datasets library writes it",
        )
    yield Unit(index, {**held, "ignored": ignored})


def items(unit: Unit) -> Iterator[Item]:
    key, _, _ = unit.what["file"]
    uri = join(unit.what["root"], key)
    row = unit.what["row"]
    try:
        with _open(uri) as file:
            schema = file.schema_arrow
            column = _image_column(schema)
            classes = _classes(schema)
            others = [f.name for f in schema if f.name != column and not _holds_bytes(f.type)]
            batches = file.iter_batches(
                batch_size=_ROWS, row_groups=unit.what["row_groups"], columns=[column, *others]
            )
            for batch in batches:
                for values in batch.to_pylist():
                    yield _item(f"{key}/{row}", values.pop(column), values, classes)
                    row += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        bad = ImageError("broken_archive", f"{key} cannot be read from row {row:,} on: {error}")
        yield Item(key, uri, error=bad)


def _whats(root: str, file: File) -> Iterator[dict[str, Any]]:
    """The units of one file: runs of row groups with at least a thousand rows."""
    what = {"root": root, "file": file.facts}
    try:
        with _open(join(root, file.key)) as opened:
            if _image_column(opened.schema_arrow) is None:
                yield {"columns": ", ".join(f"{f.name} ({f.type})" for f in opened.schema_arrow)[:1000]}
                return
            groups: list[int] = []
            start = rows = 0
            for group in range(opened.num_row_groups):
                groups.append(group)
                rows += opened.metadata.row_group(group).num_rows
                if rows >= UNIT_FILES or group == opened.num_row_groups - 1:
                    yield {**what, "row": start, "row_groups": groups}
                    start, rows, groups = start + rows, 0, []
    except (pa.ArrowException, OSError):
        # `items` meets the same damage and says what it is.
        yield {**what, "row": 0, "row_groups": []}


def _open(uri: str) -> pq.ParquetFile:
    filesystem, path = resolve(uri)
    # Pages are read as they are needed: a row group's images may be gigabytes.
    return pq.ParquetFile(filesystem.open_input_file(path), pre_buffer=False, buffer_size=1 << 20)


def _item(key: str, image: Any, others: dict[str, Any], classes: dict[str, list[str]]) -> Item:
    said = {name: others.pop(name) for name in (*_TEXT_NAMES, *classes) if name in others}
    path = None
    if isinstance(image, dict):
        image, path = image.get("bytes"), image.get("path")
    if isinstance(path, str):
        others["path"] = path
    metadata = {name: value for name, value in others.items() if value is not None}
    if not isinstance(image, bytes):
        why = "the row holds a path but no bytes" if path else "the row holds no image"
        return Item(key, error=ImageError("missing", why))
    return Item(key, length=len(image), data=image, metadata=metadata, labels=partial(_labels, said, classes))


def _labels(
    said: dict[str, Any], classes: dict[str, list[str]], _: ImageInfo
) -> list[Annotation | ImageError]:
    made: list[Annotation | ImageError] = []
    for name, value in said.items():
        if name in classes:
            for number in value if isinstance(value, list) else [value]:
                if number is None or number == -1:
                    continue
                if isinstance(number, int) and 0 <= number < len(classes[name]):
                    made.append(Annotation("text", classes[name][number], "class", source="human"))
                else:
                    made.append(ImageError("bad_annotation", f"{name}: there is no class {number!r}"))
            continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text.strip():
                made.append(Annotation("text", text.strip(), "brief", source="alt_text"))
    return made


def _image_column(schema: pa.Schema) -> str | None:
    holders = [f.name for f in schema if _is_bytes(f.type) or _has_bytes(f.type)]
    features = _features(schema)
    named = [name for name in holders if features.get(name, {}).get("_type") == "Image"]
    called = [name for name in _IMAGE_NAMES if name in holders]
    return next(iter([*named, *called, *holders]), None)


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes by column."""
    found = {}
    for name, feature in _features(schema).items():
        # A list of labels has the feature inside, under "feature" or as the only element.
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature
        names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(n, str) for n in names):
            found[name] = names
    return found


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the `datasets` library wrote about the columns; empty where it wrote nothing readable."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_struct(kind)
        and kind.get_field_index("bytes") >= 0
        and _is_bytes(kind.field("bytes").type)
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether there are bytes anywhere in the type: such columns are not read."""
    if _is_bytes(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
