"""How long a start takes on a data set with very many finished shards, with the ledger and without.

    python benchmarks/startup.py [--shards 100000] [--s3-shards 20000] [--folder /tmp]

Makes a data set of tiny but real shards of one specialist on a disk, and one on a real S3 server over HTTP, and makes
the plan of a run on each (`data_engine.runner.plan.make_plan`, in a process of its own): without a ledger, so that
every footer is read; with the ledger that this start has left; and with a thousand shards missing from it. Prints
seconds, those of the processor, and the most memory that the process held.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.fingerprint import specialist_fingerprints
from data_engine.ledger import FOLDER
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.plan import make_plan
from data_engine.schema import ANNOTATIONS
from data_engine.storage import Store
from tests.s3_server import s3_environment, s3_server

RECIPE = Recipe(name="startup", specialists={"looks": SpecialistPart(use="tests.fault_specialists:Looks")})
IMAGES = 1000
"""Images of each shard, as `dataset.json` says; the shards hold no rows, for only their number counts here."""


LINKS = 10_000
"""Names of one file on a disk: to the listing and to who opens them they are files."""


def make(url: str, shards: int) -> None:
    """A data set whose every shard is the same small file: written once, put in place many times."""
    info = DatasetInfo(
        id="0" * 16, source="none", source_format="folder", fingerprint="none", images=shards * IMAGES, shards=shards,
        shard_size=IMAGES, embedded=False, labels=[], version="0",
    )  # fmt: skip
    dataset = Dataset.create(url, info)
    fingerprint = specialist_fingerprints(RECIPE, dataset)["looks"]
    dataset.write_annotations(
        "looks", dataset.shards[0], ANNOTATIONS.empty_table(), {"fingerprint": fingerprint}
    )
    first = f"annotations/looks/{dataset.shards[0]}.parquet"
    data = dataset.store.read(first)

    if dataset.store.local:
        source = ""
        for number, shard in enumerate(dataset.shards[1:]):
            target = dataset.store.path(f"annotations/looks/{shard}.parquet")
            if number % LINKS == 0:
                Path(target).write_bytes(data)
                source = target
            else:
                os.link(source, target)
        return
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda s: dataset.store.write_bytes(f"annotations/looks/{s}.parquet", data),
                dataset.shards[1:],
            )
        )


def start(url: str, remember: bool) -> None:
    """Make the plan, in this process alone, and print what it took."""
    began, worked = time.monotonic(), time.process_time()
    plan = make_plan(RECIPE, Dataset.open(url))
    seconds, cpu = time.monotonic() - began, time.process_time() - worked
    if remember:
        plan.keep()
        plan.flush()
    found = plan.found["looks"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"seconds": seconds, "cpu": cpu, "memory": memory, "read": found.read, "todo": plan.units})
    )


def measured(url: str, what: str, *more: str) -> None:
    command = [sys.executable, "-m", "benchmarks.startup", "--start", url, *more]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{what}: {said['seconds']:.1f} s ({said['cpu']:.1f} s of CPU), {said['memory']:,.0f} MiB at most, {said['read']:,} footers read, "
        f"{said['todo']:,} units to do",
        flush=True,
    )


def measure(url: str, shards: int) -> None:
    began = time.monotonic()
    make(url, shards)
    print(f"{url}: {shards:,} shards made in {time.monotonic() - began:.0f} s", flush=True)
    measured(url, "without a ledger", "--remember")
    measured(url, "with the ledger")
    store = Store(url)
    for shard in Dataset.open(url).shards[:: max(1, shards // 1000)]:
        store.delete(f"annotations/looks/{shard}.parquet")
    measured(url, "with the ledger, about 1,000 shards deleted")
    store.delete_folder(FOLDER)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--s3-shards", type=int, default=20_000)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--start", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--remember", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.start:
        start(chosen.start, chosen.remember)
        return
    folder = tempfile.mkdtemp(dir=chosen.folder, prefix="startup-")
    try:
        if chosen.shards:
            measure(f"{folder}/ds", chosen.shards)
    finally:
        shutil.rmtree(folder)
    if chosen.s3_shards:
        with s3_server() as server, s3_environment(server, patience=300):
            measure("s3://bucket/ds", chosen.s3_shards)


if __name__ == "__main__":
    main()
