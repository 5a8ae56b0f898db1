"""Which format a source has: by name, or by looking."""

from __future__ import annotations

import importlib
from typing import cast

from data_engine.entry_point import did_you_mean
from data_engine.errors import SourceError
from data_engine.ingest.item import SourceFormat
from data_engine.ingest.listing import kind, missing

LOOKED_FOR = {
    "scenes": "scenes.json, as `fde scenes make` writes it",
    "coco": "a COCO .json, in the folder or under annotations/",
    "open_images": "*annotations-bbox.csv",
    "webdataset": ".tar files",
    "parquet": ".parquet files with a column of images",
    "classes": "one folder of images per class",
    "folder": "image files (.jpg, .png, .webp, .gif, .tif)",
}
"""The formats in the order in which they are tried, and what each is known by. A format is the module
of that name beside this one."""


def by_name(name: str) -> SourceFormat:
    """Raises SourceError for a name that is no format."""
    if name not in LOOKED_FOR:
        raise SourceError(
            f"there is no format {name!r}{did_you_mean(name, list(LOOKED_FOR))}", "give a known --format"
        )
    return cast(SourceFormat, importlib.import_module(f"data_engine.ingest.{name}"))


def detected(source: str) -> SourceFormat:
    """The first format that knows the source. Raises SourceError where none does, or nothing is there."""
    for name in LOOKED_FOR:
        found = by_name(name)
        if found.detect(source):
            return found
    if "*" not in source and not kind(source):
        raise missing(source)
    looked = "; ".join(f"{name}: {what}" for name, what in LOOKED_FOR.items())
    raise SourceError(
        f"nothing to ingest was found in {source}", f"looked for {looked} (choose one with --format)"
    )
