"""Ingest: any pile of images becomes a data set.

Two passes. Each unit of the source is staged (data_engine.ingest.stage): its images are read, decoded
once to prove that they decode, and named by their content. Then what was staged is merged
(data_engine.ingest.merge) into shards. `dataset.json` is written last: a folder without it holds an
unfinished ingest, which the same command finishes, to the same rows as if it had never been stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_engine import __version__
from data_engine.dataset import Dataset, DatasetInfo
from data_engine.errors import DatasetError, SourceError
from data_engine.fingerprint import digest
from data_engine.image_bytes import ByteReader
from data_engine.ingest.formats import by_name, detected
from data_engine.ingest.item import SourceFormat
from data_engine.ingest.listing import normal
from data_engine.ingest.merge import VERSION as MERGE_VERSION
from data_engine.ingest.merge import Plan, merge
from data_engine.ingest.stage import (
    FOLDER,
    stage_unit,
    staged_counts,
    staged_name,
    unit_fingerprint,
    what_counts,
)
from data_engine.shards import read_provenances, read_table
from data_engine.storage import Store, storage_errors

_MARKER = f"{FOLDER}/source.json"


@dataclass
class IngestSummary:
    """What an ingest did. `keys` counts the names of images: more than `images` where bytes repeat.

    `failures` is by reason, `labels` rows by source. `ignored` counts files that are no images,
    `left_out` labels that were left out on purpose, by what they are; both are 0 or empty for a data set
    that was there `already`. `resumed_units` were staged by an earlier run that was stopped.
    """

    format: str
    images: int = 0
    keys: int = 0
    shards: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    units: int = 0
    resumed_units: int = 0
    seconds: float = 0.0
    already: bool = False


def ingest(
    source: str,
    url: str,
    *,
    format: str | None = None,
    embed: bool = False,
    shard_size: int = 1000,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IngestSummary:
    """Make the data set `url` of a source. Doing so again is done at once.

    `format` is a name of data_engine.ingest.formats, found out when None. `embed` copies the images'
    bytes into the data set. `workers` threads look at images (default: one per core); `progress` is
    called with the images and failures so far. Raises SourceError for a source that is not there, not
    recognised or without one usable image, DatasetError where `url` holds something else.
    """
    if shard_size < 1:
        raise SourceError(f"a shard cannot hold {shard_size} images", "give a shard size of 1 or more")
    started = time.monotonic()
    source = normal(source)
    chosen = by_name(format) if format else detected(source)
    options = {"embed": embed, "shard_size": shard_size}
    store = Store(url)
    if store.exists("dataset.json"):
        summary = _already(store, url, source, chosen, options)
        summary.seconds = time.monotonic() - started
        return summary
    store.sweep()
    run = _Run(source, chosen, store, options, workers or os.cpu_count() or 1, progress)
    summary = run.ingest()
    summary.seconds = time.monotonic() - started
    return summary


class _Identity:
    """The fingerprint of a source, growing with what is seen of it."""

    def __init__(self, source: str, format_name: str) -> None:
        self._hash = hashlib.sha256(f"{source}\n{format_name}".encode("utf-8", "replace"))

    def add(self, part: Any) -> None:
        self._hash.update(digest(part).encode())

    def fingerprint(self, options: dict[str, Any]) -> str:
        return digest({"source": self._hash.hexdigest(), **options})


def _parts(chosen: SourceFormat, source: str) -> Iterator[Any] | None:
    """What a format says a source is, where it has something quicker than listing its units."""
    identity: Callable[[str], Iterator[Any]] | None = getattr(chosen, "identity", None)
    return None if identity is None else identity(source)


def _already(
    store: Store, url: str, source: str, chosen: SourceFormat, options: dict[str, Any]
) -> IngestSummary:
    """The summary of a finished data set, if it is of this source with these options."""
    info = Dataset.open(url).info
    if (info.source, info.source_format) != (source, chosen.NAME):
        raise DatasetError(
            f"{url} already holds the data set of {info.source} ({info.source_format})",
            "choose another folder for this source",
        )
    if (info.embedded, info.shard_size) != (options["embed"], options["shard_size"]):
        raise DatasetError(
            f"{url} was ingested with other options (shard size {info.shard_size}, "
            f"{'with' if info.embedded else 'without'} embedded images)",
            "give the same options, or choose another folder",
        )
    identity = _Identity(source, chosen.NAME)
    parts = _parts(chosen, source)
    for part in parts if parts is not None else (what_counts(unit) for unit in chosen.units(source)):
        identity.add(part)
    if identity.fingerprint(options) != info.fingerprint:
        raise DatasetError(
            f"{source} has changed since it was ingested into {url}",
            "a data set is never changed: ingest into another folder, or go on without naming the source",
        )
    store.delete_folder(FOLDER)  # left by a run that was stopped after its last step but one
    images = read_provenances(store, [f"images/{name}" for name in store.files("images")])
    labels = {
        name: sum(
            (found or {}).get("rows", 0)
            for found in read_provenances(
                store, [f"annotations/{name}/{file}" for file in store.files(f"annotations/{name}")]
            )
        )
        for name in info.labels
    }
    failures: dict[str, int] = {}
    if store.exists("failures/ingest/00000.parquet"):
        reasons = read_table(store, "failures/ingest/00000.parquet", ["reason"])["reason"]
        failures = {v["values"]: v["counts"] for v in pc.value_counts(reasons).to_pylist()}
    return IngestSummary(
        format=info.source_format,
        images=info.images,
        keys=sum((found or {}).get("keys", 0) for found in images),
        shards=info.shards,
        failures=dict(sorted(failures.items())),
        labels=labels,
        already=True,
    )


class _Run:
    """One ingest, from the first unit to `dataset.json`."""

    def __init__(
        self,
        source: str,
        chosen: SourceFormat,
        store: Store,
        options: dict[str, Any],
        workers: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.source = source
        self.format = chosen
        self.store = store
        self.options = options
        self.workers = workers
        self.progress = progress
        self.images = 0
        self.failed = 0
        self.summary = IngestSummary(chosen.NAME)
        self.identity = _Identity(source, chosen.NAME)
        self.staged = hashlib.sha256(f"merge {MERGE_VERSION}".encode())

    def ingest(self) -> IngestSummary:
        begun_before = self._check_place()
        with (
            ByteReader() as reader,
            ThreadPoolExecutor(self.workers, thread_name_prefix="ingest") as pool,
        ):
            try:
                self._stage(pool, reader, begun_before)
            except SourceError:
                if not begun_before and not self.images:
                    self._leave_nothing()
                raise
            if not self.images:
                error = self._no_image()
                self._leave_nothing()
                raise error
            fingerprint = digest({"units": self.staged.hexdigest(), **self.options})
            plan = Plan(
                self.store, self.format, self.source, self.summary.units, fingerprint,
                self.options["shard_size"], self.options["embed"], self.workers,
            )  # fmt: skip
            merged = merge(plan, pool, reader)
        summary = self.summary
        summary.images, summary.keys, summary.shards = merged.images, merged.keys, merged.shards
        summary.labels, summary.failures = merged.labels, merged.failures
        identity = self.identity.fingerprint(self.options)
        info = DatasetInfo(
            id=identity[:16],
            source=self.source,
            source_format=self.format.NAME,
            fingerprint=identity,
            images=merged.images,
            shards=merged.shards,
            shard_size=self.options["shard_size"],
            embedded=self.options["embed"],
            labels=list(merged.labels),
            version=__version__,
        )
        Dataset.create(self.store.url, info)
        self.store.delete_folder(FOLDER)
        return summary

    def _check_place(self) -> bool:
        """Whether an ingest of this source was begun here. Raises DatasetError where something else is."""
        if self.store.exists(_MARKER):
            try:
                before = json.loads(self.store.read(_MARKER))
            except ValueError:
                before = None
            if before is not None and before != self._mark():
                raise DatasetError(
                    f"{self.store.url} holds an unfinished ingest of {before.get('source')}",
                    f"finish it with: fde ingest {before.get('source')} {self.store.url} - or delete that folder",
                )
            return before is not None
        selector = pa.fs.FileSelector(self.store.root, allow_not_found=True)
        with storage_errors(self.store.url):
            present = [f.base_name for f in self.store.filesystem.get_file_info(selector)]
        if any(not name.startswith(".") for name in present):
            raise DatasetError(
                f"{self.store.url} is no data set, and not empty",
                "give a new or an empty folder for the data set",
            )
        return False

    def _mark(self) -> dict[str, str]:
        return {"source": self.source, "format": self.format.NAME}

    def _stage(self, pool: ThreadPoolExecutor, reader: ByteReader, begun_before: bool) -> None:
        parts = _parts(self.format, self.source)
        for part in parts or ():
            self.identity.add(part)
        present = set(self.store.files(FOLDER))
        left_out: Counter[str] = Counter()
        for unit in self.format.units(self.source):
            if unit.index == 0 and not begun_before:
                self.store.write_bytes(_MARKER, json.dumps(self._mark()).encode())
            fingerprint = unit_fingerprint(self.format.NAME, unit)
            self.staged.update(fingerprint.encode())
            if parts is None:
                self.identity.add(what_counts(unit))
            self.summary.ignored += unit.what.get("ignored", 0)
            left_out.update(unit.what.get("left_out", {}))
            self.summary.units = unit.index + 1
            name = staged_name(unit.index)
            counts = None
            if Path(name).name in present:
                counts = staged_counts(self.store, name, fingerprint)
            if counts is not None:
                self.summary.resumed_units += 1
                self._tick(*counts)
                continue
            items = self.format.items(unit)
            stage_unit(self.store, unit, items, fingerprint, pool, reader, self.workers, self._tick)
        self.summary.left_out = dict(left_out)

    def _tick(self, images: int, failures: int) -> None:
        self.images += images
        self.failed += failures
        if self.progress is not None:
            self.progress(self.images, self.failed)

    def _no_image(self) -> SourceError:
        why = "it is empty"
        if self.failed:
            table = read_table(self.store, staged_name(0), ["failure"])
            first = next((row["failure"] for row in table.to_pylist() if row["failure"]), None)
            why = f"all {self.failed:,} were refused"
            if first is not None:
                why += f", the first ({first['key']}) since: {first['message']}"
        return SourceError(
            f"{self.source} has no usable image: {why}", "check that it is the source you mean"
        )

    def _leave_nothing(self) -> None:
        self.store.delete_folder(FOLDER)
        if self.store.local:
            root = Path(self.store.root)
            for folder in (root / ".tmp", root):
                with contextlib.suppress(OSError):
                    folder.rmdir()
