"""A data set of any number of made-up annotations, written fast: what a benchmark of queries needs.

Each image has 41 statements, in the proportions of FLD-5B's Table 2 but for fewer phrases: 4 texts and what they
are made of, 5 regions with a class and a description each, a score of each class, and 18 phrases; 15 % are
dropped by verdicts. Every shard has ids of its own; texts, boxes and scores repeat from shard to shard. Masks
there are none.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.schema import ANNOTATIONS, IMAGES, VERDICTS
from data_engine.shards import shard_name, write_shard

TEXTS = ("brief", "brief", "detailed", "more_detailed")
REGIONS, PHRASES = 5, 18
PER_IMAGE = 2 * len(TEXTS) + 3 * REGIONS + PHRASES
SOURCES = ("captioner", "elements", "detector", "scorer", "grounder")
_WORDS = np.array(
    [
        "a",
        "the",
        "red",
        "small",
        "old",
        "dog",
        "cup",
        "table",
        "person",
        "street",
        "of",
        "on",
        "with",
        "near",
        "sits",
        "holds",
        "walks",
        "and",
    ]
)
_SENTENCES = {"brief": 8, "detailed": 31, "more_detailed": 70}
_CLASSES = np.array([f"thing {i}" for i in range(365)])
_HEX = np.array([f"{i:02x}".encode() for i in range(256)]).view(np.uint16)


def make(url: str, annotations: int, per_shard: int = 5000) -> Dataset:
    """Write a data set of `annotations`, rounded up to whole shards of `per_shard` images, and its verdicts."""
    shards = -(-annotations // (PER_IMAGE * per_shard))
    info = DatasetInfo(
        "0" * 16, "made up", "none", "0" * 32, shards * per_shard, shards, per_shard, False, [], "0"
    )
    dataset = Dataset.create(url, info)
    random = np.random.default_rng(0)
    parts = _parts(per_shard, random)
    for number in range(shards):
        _write(dataset, shard_name(number), per_shard, parts, random)
    return dataset


def _write(
    dataset: Dataset,
    shard: str,
    images: int,
    parts: dict[str, dict[str, pa.Array]],
    random: np.random.Generator,
) -> None:
    image_ids = _ids(images, random)
    table = pa.table(
        {
            "image_id": image_ids,
            "keys": pa.ListArray.from_arrays(np.arange(images + 1, dtype=np.int32), image_ids),
            "uri": pa.array(["images.tar"] * images),
            "offset": pa.array(np.arange(images) * 100_000),
            "length": pa.array(np.full(images, 90_000)),
            "bytes": pa.nulls(images, pa.large_binary()),
            "width": pa.array(np.full(images, 640, np.int32)),
            "height": pa.array(np.full(images, 480, np.int32)),
            "format": pa.array(["jpeg"] * images),
            "metadata": pa.nulls(images, pa.string()),
        },
        schema=IMAGES,
    )
    write_shard(dataset.store, f"images/{shard}.parquet", table, IMAGES, {"fingerprint": "0", "rows": images})
    ids: dict[str, pa.Array] = {}
    judged = []
    for source in SOURCES:
        part = parts[source]
        count = len(part["image"])
        ids[source] = _ids(count, random)
        parent = part["parent"] if part["of"] is None else ids[part["of"]].take(part["parent"])
        if source == "detector":  # descriptions hang on their own source's rows
            parent = ids[source].take(part["parent"])
        columns = {
            name: part.get(name, pa.nulls(count, ANNOTATIONS.field(name).type)) for name in ANNOTATIONS.names
        }
        columns |= {
            "annotation_id": ids[source],
            "image_id": image_ids.take(part["image"]),
            "parent_id": parent,
            "source": pa.array([source]).take(pa.array(np.zeros(count, np.int64))),
            "round": pa.array(np.zeros(count, np.int32)),
        }
        rows = pa.table(columns, schema=ANNOTATIONS)
        write_shard(
            dataset.store, f"annotations/{source}/{shard}.parquet", rows, ANNOTATIONS,
            {"fingerprint": source, "rows": count, "images": images},
        )  # fmt: skip
        judged.append(rows.select(["annotation_id", "image_id", "source"]))
    verdicts = pa.concat_tables(judged).combine_chunks()
    drawn = random.random(verdicts.num_rows)
    by = pa.array(["score", "nms", "parent"]).take(
        pa.array((drawn * 20).astype(np.int64), mask=drawn >= 0.15)
    )
    verdicts = verdicts.append_column("kept", pa.array(drawn >= 0.15)).append_column("dropped_by", by)
    verdicts = verdicts.append_column("value", pa.array(drawn.astype(np.float32), mask=drawn >= 0.1))
    verdicts = verdicts.append_column("round", pa.array(np.zeros(verdicts.num_rows, np.int32)))
    verdicts = verdicts.cast(VERDICTS)
    write_shard(dataset.store, f"verdicts/0/{shard}.parquet", verdicts, VERDICTS, {"rows": verdicts.num_rows})


def _ids(count: int, random: np.random.Generator) -> pa.Array:
    """`count` different ids of 32 hex digits."""
    data = _HEX[np.frombuffer(random.bytes(16 * count), np.uint8)]
    offsets = np.arange(count + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(data))


def _parts(images: int, random: np.random.Generator) -> dict[str, dict[str, pa.Array]]:
    """What every shard says: columns of each source, with the numbers of the images and of the parents' rows."""

    def each(count: int) -> np.ndarray:
        return np.repeat(np.arange(images), count)

    granularity = np.tile(np.array(TEXTS), images)
    texts = [" ".join(random.choice(_WORDS, _SENTENCES[g])) for g in granularity]
    made_of = [_made_of(text) for text in texts]
    n = len(texts)
    regions = images * REGIONS
    boxes = _boxes(regions, random)
    phrases = images * PHRASES
    of_text = each(PHRASES) * len(TEXTS) + np.tile(np.arange(PHRASES) % len(TEXTS), images)
    # A phrase's words are the first of its text.
    spelt = [texts[i][:9] for i in of_text]
    return {
        "captioner": {
            "of": None, "image": each(len(TEXTS)), "parent": pa.nulls(n, pa.string()), "kind": _same("text", n),
            "granularity": pa.array(granularity), "text": pa.array(texts),
        },
        "elements": {
            "of": "captioner", "image": each(len(TEXTS)), "parent": pa.array(np.arange(n)), "kind": _same("text", n),
            "granularity": _same("elements", n), "text": pa.array(made_of),
        },
        "detector": {
            "of": None, "image": np.concatenate([each(REGIONS), each(REGIONS)]),
            "parent": pa.concat_arrays([pa.nulls(regions, pa.int64()), pa.array(np.arange(regions))]),
            "kind": _same("region", 2 * regions),
            "granularity": pa.concat_arrays([_same("phrase", regions), _same("brief", regions)]),
            "text": pa.concat_arrays(
                [pa.array(_CLASSES[random.integers(0, 365, regions)]), _same("a small red cup", regions)]
            ),
            "box": _lists(np.concatenate([boxes, boxes]), pa.float32(), 4),
            "score": pa.array(random.random(2 * regions, np.float32)),
        },
        "scorer": {
            "of": "detector", "image": each(REGIONS), "parent": pa.array(np.arange(regions)),
            "kind": _same("region", regions), "score": pa.array(random.random(regions, np.float32)),
        },
        "grounder": {
            "of": "captioner", "image": each(PHRASES), "parent": pa.array(of_text), "kind": _same("phrase", phrases),
            "text": pa.array(spelt), "box": _lists(_boxes(phrases, random), pa.float32(), 4),
            "span": _lists(np.tile(np.array([[0, 9]], np.int32), (phrases, 1)), pa.int32(), 2),
            "score": pa.array(random.random(phrases, np.float32)),
        },
    }  # fmt: skip


def _made_of(text: str) -> str:
    """As many elements as a text of that length might have."""
    words = text.split()
    parts = {"objects": words[::3], "names": [], "attributes": words[1::5], "actions": words[2::7]}
    return json.dumps({**parts, "object_complexity": len(words) % 5, "action_complexity": len(words) % 3})


def _same(value: str, count: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(count, np.int64)))


def _lists(values: np.ndarray, type_: pa.DataType, size: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), type_), size)


def _boxes(count: int, random: np.random.Generator) -> np.ndarray:
    corners = random.random((count, 2, 2), np.float32) * np.array([640, 480], np.float32)
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, np.maximum(high, low + 1).clip(None, [640, 480])], axis=1)


if __name__ == "__main__":
    import sys

    make(str(Path(sys.argv[1])), int(sys.argv[2]))
