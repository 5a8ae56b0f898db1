"""A run against an S3 server that breaks things, beside the same run against one that does not."""

from __future__ import annotations

import io
import logging
import os
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.errors import FdeError
from data_engine.ingest.run import ingest
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.scenes.write import make_scenes
from data_engine.shards import read_table
from data_engine.storage import Store
from pipelines.annotate import Runner, annotate
from tests.fault_specialists import JOURNAL
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment

_USE = "tests.fault_specialists:"
_SOURCE = "s3://bucket/tars"
_IN_TAR = 500
_INVOCATIONS = 50


@dataclass
class Storm:
    """What a disturbed run met, and whether its data set is the undisturbed one's.

    `ended` are the errors that ended an invocation; the same command was then given again. `calls` and `again`
    are units of whole shards that specialists worked on, and those of them that they had worked on before.
    """

    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    ended: list[str] = field(default_factory=list)
    units: int = 0
    calls: int = 0
    again: int = 0
    rows: int = 0
    seconds: float = 0.0
    differences: list[str] = field(default_factory=list)


def through(
    server: str,
    folder: Path,
    *,
    images: int,
    shard_size: int,
    rate: float,
    seed: int,
    outages: Sequence[int] = (),
    patience: float = 30,
    runner: Runner = "inline",
    tell: Callable[[str], None] = lambda line: None,
) -> Storm:
    """Ingest and annotate drawn scenes on a server, undisturbed and disturbed, and compare every row.

    `outages` are request numbers at which the server is away for twice the patience, so that the run ends with an
    error and is given again.
    """
    make_scenes(folder / "scenes", images, seed, (128, 96))
    with s3_environment(server):
        _upload(folder / "scenes")
        tell("undisturbed run")
        _work("s3://bucket/calm", shard_size, runner)
    storm = Storm()
    journal = folder / "journal"
    started = time.monotonic()
    tell("disturbed run")
    with (
        s3_proxy(server, rate, seed) as (address, proxy),
        s3_environment(address, patience),
        _counted_retries(storm),
        _journal(journal),
    ):
        proxy.outages, proxy.outage_seconds = list(outages), 2 * patience
        while len(storm.ended) < _INVOCATIONS:
            try:
                storm.units = _work("s3://bucket/storm", shard_size, runner)
                break
            except FdeError as error:
                storm.ended.append(f"{type(error).__name__}: {error.message}")
                tell(storm.ended[-1])
    storm.seconds = time.monotonic() - started
    storm.requests, storm.faults = proxy.requests.total(), proxy.faults
    # A specialist is first given its whole shard; what follows are parts of it, where an image is refused.
    whole = [line for line in journal.read_text().splitlines() if line.endswith(f" {shard_size}")]
    storm.calls, storm.again = len(whole), len(whole) - len(set(whole))
    with s3_environment(server):
        storm.rows, storm.differences = _compared("s3://bucket/calm", "s3://bucket/storm")
    return storm


def _recipe(shard_size: int) -> Recipe:
    one: dict[str, Any] = {"batch": shard_size, "actors": 2, "cpus": 0.5}
    return Recipe(
        name="storm",
        specialists={
            "looks": SpecialistPart(use=f"{_USE}Looks", **one),
            "counts": SpecialistPart(use=f"{_USE}Counts", needs=["looks", "alt_text"], **one),
        },
    )


def _work(url: str, shard_size: int, runner: Runner) -> int:
    """What `fde annotate SOURCE DATASET` does; the units of the whole data set."""
    ingest(_SOURCE, url, shard_size=shard_size, workers=2)
    dataset = Dataset.open(url)
    summary = annotate(dataset, _recipe(shard_size), runner=runner, reporter=Reporter(terminal=False))
    return len(summary.stages) * dataset.info.shards


def _upload(folder: Path) -> None:
    """The scenes' images in tars, each with a text."""
    paths = sorted((folder / "images").iterdir())
    for number, start in enumerate(range(0, len(paths), _IN_TAR)):
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as tar:
            for path in paths[start : start + _IN_TAR]:
                tar.add(path, path.name)
                text = f"scene {path.stem}".encode()
                said = tarfile.TarInfo(f"{path.stem}.txt")
                said.size = len(text)
                tar.addfile(said, io.BytesIO(text))
        Store(_SOURCE).write_bytes(f"{number:05d}.tar", whole.getvalue())


@contextmanager
def _counted_retries(storm: Storm) -> Iterator[None]:
    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            storm.retries += "trying again" in record.msg

    log, counting = logging.getLogger("data_engine"), Count()
    before = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(counting)
    try:
        yield
    finally:
        log.removeHandler(counting)
        log.setLevel(before)


@contextmanager
def _journal(path: Path) -> Iterator[None]:
    os.environ[JOURNAL] = str(path)
    try:
        yield
    finally:
        del os.environ[JOURNAL]


def _compared(calm: str, storm: str) -> tuple[int, list[str]]:
    """Rows of the undisturbed data set, and each shard that the other lacks, has too many, or has otherwise."""
    one, other = Store(calm), Store(storm)
    wanted, found = _shards(one), _shards(other)
    said = [f"{name} should not be there" for name in found if name not in wanted]
    rows = 0
    for name in wanted:
        table = _rows(one, name)
        rows += table.num_rows
        if name not in found:
            said.append(f"{name} is missing")
        elif not _rows(other, name).equals(table):
            said.append(f"{name} differs")
    return rows, said


def _shards(store: Store) -> list[str]:
    folders = ["images"] + [f"{t}/{name}" for t in ("annotations", "failures") for name in store.folders(t)]
    return [f"{folder}/{name}" for folder in folders for name in store.files(folder)]


def _rows(store: Store, name: str) -> pa.Table:
    return read_table(store, name).replace_schema_metadata(None)
