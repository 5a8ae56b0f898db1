"""Peak memory of `fde filter` as a data set grows from 1 to 100 shards.

python benchmarks/filter_memory.py [shards ...]

Shards of 1,000 images with ten boxes, two captions (one in a hundred is the same for many images) and a perceptual
hash each (one in fifty is nearly another's) are written, not counted, and judged by rules on boxes and texts and
by both filters that look at the whole data set first: CommonText and NearDuplicate. What must hold is that memory
does not grow with the shards. Each data set is judged twice: the second run finds all verdicts there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from region_filters import shard as boxes_of

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.schema import ANNOTATIONS, IMAGES
from data_engine.shards import shard_name, write_shard
from data_engine.storage import Store

IMAGES_EACH = 1000

RECIPE = """
name: memory
filters:
  near-duplicate: {use: "filters.near_duplicate:NearDuplicate", where: {kind: image}}
  length: {use: "filters.text_length:TextLength", where: {kind: text}}
  common: {use: "filters.common_text:CommonText", where: {kind: text}}
  repetition: {use: "filters.repetition:Repetition", where: {kind: text}}
  score: {use: "filters.score:MinimumScore", args: {minimum: 0.3}, where: {kind: region}}
  sane: {use: "filters.sane_box:SaneBox", where: {kind: region}}
  nms: {use: "filters.nms:Nms", where: {kind: region}}
  most: {use: "filters.most_boxes:MostBoxes", args: {most: 8}, where: {kind: region}}
"""


def make(url: str, shards: int) -> None:
    store = Store(url)
    for number in range(shards):
        name = shard_name(number)
        said, sizes = boxes_of(number, IMAGES_EACH)
        ids = sizes["image_id"]
        images = {
            "image_id": ids,
            "keys": [[f"{number}/{i}.jpg"] for i in range(IMAGES_EACH)],
            "length": pa.array(np.full(IMAGES_EACH, 1000)),
            "width": sizes["width"],
            "height": sizes["height"],
            "format": pa.repeat("JPEG", IMAGES_EACH),
        }
        write_shard(store, f"images/{name}.parquet", _filled(images, IMAGES), IMAGES, {"stage": "ingest"})
        for source, table in (("detector", said), *_told(number, ids)):
            provenance = {"stage": source, "fingerprint": "benchmark"}
            write_shard(store, f"annotations/{source}/{name}.parquet", table, ANNOTATIONS, provenance)
    info = DatasetInfo("memory", "synthetic", "none", "memory", shards * IMAGES_EACH, shards, IMAGES_EACH, False, [], "0")  # fmt: skip
    Dataset.create(url, info)


def _told(number: int, ids: pa.Array) -> list[tuple[str, pa.Table]]:
    rng = np.random.default_rng(number)
    hashes = rng.integers(0, 2**64, IMAGES_EACH, dtype=np.uint64)
    first = np.random.default_rng(0).integers(0, 2**64, IMAGES_EACH, dtype=np.uint64)
    near = rng.choice(IMAGES_EACH, IMAGES_EACH // 50, replace=False)
    hashes[near] = first[near] ^ (np.uint64(1) << rng.integers(0, 64, len(near), dtype=np.uint64))
    told = [("measures", "image", "perceptual_hash", [f"{value:016x}" for value in hashes])]
    for source, granularity in (("captioner", "brief"), ("writer", "detailed")):
        same = rng.random(IMAGES_EACH) < 0.01
        texts = [
            "a photo of nothing"
            if same[i]
            else f"a {granularity} caption about the thing {number} and the place {i}"
            for i in range(IMAGES_EACH)
        ]
        told.append((source, "text", granularity, texts))
    tables = []
    for place, (source, kind, granularity, texts) in enumerate(told):
        columns = {
            "annotation_id": [f"{place:02x}{number:014x}{i:016x}" for i in range(IMAGES_EACH)],
            "image_id": ids,
            "kind": pa.repeat(kind, IMAGES_EACH),
            "granularity": pa.repeat(granularity, IMAGES_EACH),
            "text": texts,
            "source": pa.repeat(source, IMAGES_EACH),
            "round": pa.array(np.zeros(IMAGES_EACH, np.int32)),
        }
        tables.append((source, _filled(columns, ANNOTATIONS)))
    return tables


def _filled(columns: dict[str, object], schema: pa.Schema) -> pa.Table:
    """A table with nulls in the columns that are not given."""
    rows = IMAGES_EACH
    given = {field.name: columns.get(field.name, pa.nulls(rows, field.type)) for field in schema}
    return pa.table(given).cast(schema)


def peak(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, and the most memory (MiB) that its process had."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said.decode()}")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def main(counts: list[int]) -> None:
    print(f"{'shards':>7} {'images':>9} {'first run MiB':>14} {'s':>7} {'second run MiB':>15} {'s':>7}")
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "memory.yaml"
        recipe.write_text(RECIPE)
        for count in counts:
            url = str(Path(folder) / f"ds{count}")
            make(url, count)
            command = [
                sys.executable,
                "-m",
                "pipelines",
                "filter",
                url,
                "--recipe",
                str(recipe),
                "--runner",
                "inline",
            ]
            (seconds, most), (again, least) = peak(command), peak(command)
            print(
                f"{count:>7,} {count * IMAGES_EACH:>9,} {most:>14,.0f} {seconds:>7.1f} {least:>15,.0f} {again:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main([int(value) for value in sys.argv[1:]] or [1, 10, 100])
