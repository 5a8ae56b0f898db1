"""Open Images: pictures named <ImageID>.jpg anywhere below a folder, and its CSV files.

The CSVs lie in the folder, or below it in annotations/, csv/, csv_folder/, labels/ or metadata/:
`*annotations-bbox.csv` (boxes), `*class-descriptions*.csv` (words for the label ids; needed), and where
there are any `*imagelabels*.csv` (labels of whole images).

- box -> a region with the class's words (granularity `phrase`). Coordinates are fractions of the image
  as shown, clipped. `IsGroupOf` 1 -> left out and counted: one box around five or more things.
- image-level label with Confidence 1 -> a text of granularity `class`; Confidence 0 says that people
  found it absent, and labels by machines (`machine-imagelabels`) were not looked at by anyone: neither
  is taken, both are counted.
Source is `human`: people drew or verified all that is taken. Rows for images that are not in the
folder are counted and no failure, since hardly anyone has all nine million; a row that cannot be read
is a failure of its own (`bad_annotation`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, SourceError
from data_engine.image import SUFFIXES, ImageInfo
from data_engine.ingest.folder import file_item
from data_engine.ingest.item import Item, Unit
from data_engine.ingest.listing import UNIT_FILES, File, chunks, join, kind, storable, walk
from data_engine.ingest.scratch import Inserts, rows_of, scratch
from data_engine.storage import resolve

NAME = "open_images"

_CSV_FOLDERS = ("annotations", "csv", "csv_folder", "labels", "metadata")
_BOX = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf")
_LABEL = ("ImageID", "Source", "LabelName", "Confidence")


def detect(source: str) -> bool:
    return kind(source) == "folder" and any("annotations-bbox" in f.name for f in _csvs(source))


def identity(source: str) -> Iterator[Any]:
    for file in _csvs(source):
        yield file.facts
    for file in walk(source):
        if file.suffix in SUFFIXES:
            yield file.facts


def units(source: str) -> Iterator[Unit]:
    if kind(source) != "folder":
        raise SourceError(f"{source} is no folder", "give the folder with the pictures and the CSV files")
    csvs = _csvs(source)
    boxes = [f for f in csvs if "annotations-bbox" in f.name]
    labels = [f for f in csvs if "imagelabels" in f.name and "machine" not in f.name]
    names = [f for f in csvs if "class-descriptions" in f.name]
    if not (boxes or labels):
        raise SourceError(f"{source} holds no *annotations-bbox.csv", "put the CSV files into that folder")
    if not names:
        raise SourceError(
            f"{source} holds no *class-descriptions*.csv, which has the words for the labels",
            "put that file beside the others",
        )
    with scratch() as db:
        _load_csvs(db, source, boxes, labels)
        ignored = _load_listing(db, source) - len(csvs)
        words = _words(source, names)
        left_out = _left_out(db)
        for index, files in enumerate(chunks(_pictures(db), UNIT_FILES)):
            used = {label for file in files for label, *_ in file["said"]}
            what: dict[str, Any] = {
                "root": source,
                "files": files,
                "words": {k: words[k] for k in sorted(used) if k in words},
            }
            if index == 0:
                what |= {"ignored": ignored, "left_out": left_out}
            yield Unit(index, what)


def items(unit: Unit) -> Iterator[Item]:
    for file in unit.what["files"]:
        yield file_item(
            unit.what["root"],
            file["key"],
            file["size"],
            labels=partial(_labels, file["said"], unit.what["words"]),
        )


def _labels(said: list[list[Any]], words: dict[str, str], info: ImageInfo) -> list[Annotation | ImageError]:
    made: list[Annotation | ImageError] = []
    for label, *corners in said:
        if label not in words:
            made.append(ImageError("bad_annotation", f"label {label!r} has no words in class-descriptions"))
        elif corners[0] == "class":
            made.append(Annotation("text", words[label], "class", source="human"))
        elif None in corners:
            made.append(ImageError("bad_annotation", f"a box of {words[label]!r} without four numbers"))
        else:
            x0, x1, y0, y1 = (min(max(v, 0.0), 1.0) for v in corners)
            box = (x0 * info.width, y0 * info.height, x1 * info.width, y1 * info.height)
            made.append(Annotation("region", words[label], "phrase", box=box, source="human"))
    return made


def _csvs(source: str) -> list[File]:
    """The CSV files by their keys; folders of pictures are not searched for any."""
    found: list[File] = []
    for folder in ("", *_CSV_FOLDERS):
        place = join(source, folder) if folder else source
        if kind(place) == "folder":
            prefix = f"{folder}/" if folder else ""
            files = (f for f in walk(place, depth=1) if f.suffix == ".csv")
            found += [File(prefix + f.key, f.size, f.mtime) for f in files]
    return found


def _words(source: str, files: list[File]) -> dict[str, str]:
    """Words by label id. Older files have no header line."""
    words: dict[str, str] = {}
    for file in files:
        filesystem, path = resolve(join(source, file.key))
        with filesystem.open_input_file(path) as stream:
            text = bytes(stream.read()).decode("utf-8-sig", "replace")
        for row in csv.reader(io.StringIO(text)):
            if len(row) >= 2 and row[1].strip():
                words.setdefault(row[0], row[1].strip())
    return words


def _load_csvs(db: duckdb.DuckDBPyConnection, source: str, boxes: list[File], labels: list[File]) -> None:
    db.execute(
        "CREATE TABLE raw_boxes (ImageID TEXT, LabelName TEXT, XMin TEXT, XMax TEXT, YMin TEXT, YMax TEXT, IsGroupOf TEXT)"
    )
    db.execute("CREATE TABLE raw_labels (ImageID TEXT, Source TEXT, LabelName TEXT, Confidence TEXT)")
    for files, columns, table in ((boxes, _BOX, "raw_boxes"), (labels, _LABEL, "raw_labels")):
        for file in files:
            for batch in _read_csv(join(source, file.key), columns):
                db.register("batch", pa.Table.from_batches([batch]))
                db.execute(f"INSERT INTO {table} SELECT * FROM batch")  # noqa: S608 - our own names


def _read_csv(uri: str, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    filesystem, path = resolve(uri)
    convert = pa.csv.ConvertOptions(
        include_columns=list(columns),
        include_missing_columns=True,
        column_types={name: pa.string() for name in columns},
    )
    try:
        with filesystem.open_input_stream(path) as stream:
            yield from pa.csv.open_csv(stream, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise SourceError(
            f"{uri} is not the CSV it should be: {error}", "mend it, or download it again"
        ) from error


def _load_listing(db: duckdb.DuckDBPyConnection, source: str) -> int:
    files = Inserts(
        db,
        "files",
        {"place": pa.int64(), "id": pa.string(), "key": pa.string(), "size": pa.int64(), "mtime": pa.int64()},
    )
    ignored = 0
    for place, file in enumerate(walk(source)):
        if file.suffix in SUFFIXES and storable(file.key):
            files.add(place, file.name[: -len(file.suffix)], *file.facts)
        else:
            ignored += 1
    files.flush()
    return ignored


def _left_out(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    counts = {
        "group regions": "SELECT count(*) FROM raw_boxes WHERE IsGroupOf = '1'",
        "labels not confirmed": f"SELECT count(*) FROM raw_labels WHERE NOT {_CONFIRMED}",  # noqa: S608
        "labels of absent images": "SELECT (SELECT count(*) FROM raw_boxes b ANTI JOIN files f ON f.id = b.ImageID) + "
        "(SELECT count(*) FROM raw_labels l ANTI JOIN files f ON f.id = l.ImageID)",
    }
    found = {name: int((db.execute(query).fetchone() or (0,))[0]) for name, query in counts.items()}
    return {name: count for name, count in found.items() if count}


_CONFIRMED = "(coalesce(try_cast(Confidence AS DOUBLE) = 1, false) AND coalesce(Source, '') <> 'machine')"


def _pictures(db: duckdb.DuckDBPyConnection) -> Iterator[dict[str, Any]]:
    """The pictures in the folder's order, each with its labels: ids alone, or with four fractions."""
    query = f"""
        WITH said AS (
            SELECT ImageID AS id, 1 AS part, rowid AS row, LabelName AS label,
                   try_cast(XMin AS DOUBLE) AS x0, try_cast(XMax AS DOUBLE) AS x1,
                   try_cast(YMin AS DOUBLE) AS y0, try_cast(YMax AS DOUBLE) AS y1
            FROM raw_boxes WHERE IsGroupOf IS DISTINCT FROM '1'
            UNION ALL
            SELECT ImageID, 0, rowid, LabelName, NULL, NULL, NULL, NULL FROM raw_labels WHERE {_CONFIRMED}
        )
        SELECT f.key, f.size, f.mtime, s.part, s.label, s.x0, s.x1, s.y0, s.y1
        FROM files f LEFT JOIN said s ON s.id = f.id
        ORDER BY f.place, s.part, s.row
    """  # noqa: S608 - our own condition
    for (key, size, mtime), group in groupby(rows_of(db, query), key=lambda row: row[:3]):
        said = [
            [label or "", "class"] if part == 0 else [label or "", *corners]
            for _, _, _, part, label, *corners in group
            if part is not None
        ]
        yield {"key": key, "size": size, "mtime": mtime, "said": said}
