"""A small data set written by hand, with every sort of statement, whose figures can be counted on fingers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.fingerprint import digest
from data_engine.qa.survey import SCHEMAS
from data_engine.refine_part import judged_in
from data_engine.schema import ANNOTATIONS, IMAGES, RUNS, VERDICTS
from data_engine.shards import read_provenance, read_table, write_shard
from tests.picture_files import jpeg

Row = dict[str, Any]

WIDTH, HEIGHT = 64, 48


def statement(annotation_id: str, image_id: str, source: str, kind: str, **more: Any) -> Row:
    empty = dict.fromkeys(ANNOTATIONS.names)
    return {
        **empty,
        "annotation_id": annotation_id,
        "image_id": image_id,
        "source": source,
        "kind": kind,
        "round": 0,
        **more,
    }


def said_of(image: str) -> dict[str, list[Row]]:
    """Rows by source about one image; ids are the image's with a letter behind."""

    def row(letters: str, source: str, kind: str, **more: Any) -> Row:
        if "parent_id" in more:
            more["parent_id"] = image + more["parent_id"]
        return statement(image + letters, image, source, kind, **more)

    mask = {"size": [HEIGHT, WIDTH], "counts": "0"}
    elements = {
        "objects": ["dog", "sofa"], "names": ["Rex"], "attributes": ["old"], "actions": ["sleeps"],
        "object_complexity": 3, "action_complexity": 2, "tokens": 8, "sentences": 1,
    }  # fmt: skip
    return {
        "human": [
            row("h", "human", "region", granularity="phrase", text="dog", box=[8, 8, 40, 40]),
            row("m", "human", "region", parent_id="h", mask=mask, box=[8, 8, 40, 40]),
        ],
        "detector": [
            row("d", "detector", "region", granularity="phrase", text="Dog", box=[8, 8, 40, 36], score=0.875),
            row("e", "detector", "region", granularity="phrase", text="sofa", box=[0, 0, 64, 48], score=0.25),
            row("f", "detector", "region", granularity="brief", text="an old dog", box=[8, 8, 40, 36], parent_id="d"),
            row("o", "detector", "region", granularity="ocr", text="EXIT", box=[1, 1, 9, 5], quad=[1, 1, 9, 1, 9, 5, 1, 5]),
        ],
        "captioner": [
            row("t", "captioner", "text", granularity="brief", text="Rex, an old dog, sleeps."),
            row("u", "captioner", "text", granularity="detailed", text="Ein Hund 🐕 schläft."),
        ],
        "grounder": [
            row("p", "grounder", "phrase", text="an old dog", span=[5, 15], box=[8, 8, 40, 40], parent_id="t", score=0.5),
            row("q", "grounder", "phrase", text="Rex", span=[0, 3], box=[8, 8, 40, 40], parent_id="t", score=1.0),
            row("r", "grounder", "phrase", text="🐕", span=[9, 10], box=[0, 0, 2, 2], parent_id="u", score=0.75),
            row("s", "grounder", "phrase", mask=mask, box=[8, 8, 40, 40], parent_id="p", score=0.5),
        ],
        "elements": [row("x", "elements", "text", granularity="elements", text=json.dumps(elements), parent_id="t")],
        "fused": [
            row("g", "fused", "region", granularity="phrase", text="dog", box=[8, 8, 40, 38], score=0.9),
            row("1", "fused", "region", granularity="member", text=image + "h", parent_id="g"),
            row("2", "fused", "region", granularity="member", text=image + "d", parent_id="g"),
        ],
        "scorer": [row("c", "scorer", "region", parent_id="d", score=0.125)],
    }  # fmt: skip


def hand_made(folder: Path, shards: tuple[tuple[str, ...], ...] = (("a", "b"), ("c",))) -> Dataset:
    """A data set of images of 64 x 48 by these names, shard by shard, of each of which `said_of` is said.

    Round 0 of verdicts drops the sofa of every image, round 1 keeps it and drops the letters.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    names = [name for shard in shards for name in shard]
    info = DatasetInfo(
        "0" * 16, str(pictures), "folder", "0" * 32, len(names), len(shards), 2, False, ["human"], "0"
    )
    dataset = Dataset.create(str(folder / "dataset"), info)
    for number, images in enumerate(shards):
        _write_shard(dataset, f"{number:05d}", images, pictures)
    run = {field.name: None if field.nullable else 0 for field in RUNS} | {
        "run_id": "r1", "command": "annotate", "recipe": "hand", "stage": "detector", "status": "done",
        "started": 0, "seconds": 2.0, "images": len(names), "annotations": 4 * len(names), "version": "0",
    }  # fmt: skip
    dataset.write_run("r1", [run])
    return dataset


def _write_shard(dataset: Dataset, shard: str, images: tuple[str, ...], pictures: Path) -> None:
    rows = []
    for number, name in enumerate(images):
        path = pictures / f"{name}.jpg"
        path.write_bytes(jpeg(number, WIDTH, HEIGHT))
        rows.append(
            {"image_id": name, "keys": [f"{name}.jpg"], "uri": str(path), "offset": None, "length": path.stat().st_size,
             "bytes": None, "width": WIDTH, "height": HEIGHT, "format": "jpeg", "metadata": None}
        )  # fmt: skip
    facts = {"stage": "ingest", "fingerprint": "ingest", "rows": len(rows)}
    write_shard(dataset.store, f"images/{shard}.parquet", pa.Table.from_pylist(rows, IMAGES), IMAGES, facts)
    said: dict[str, list[Row]] = {}
    for name in images:
        for source, some in said_of(name).items():
            said.setdefault(source, []).extend(some)
    for source, some in said.items():
        facts = {"stage": source, "fingerprint": source, "rows": len(some)}
        if source != "human":
            facts["images"] = len(images)
        dataset.write_annotations(source, shard, pa.Table.from_pylist(some, ANNOTATIONS), facts)
    for round_, dropped in ((0, "e"), (1, "o")):
        verdicts = [
            {"annotation_id": row["annotation_id"], "image_id": row["image_id"], "source": source, "round": round_,
             "kept": not row["annotation_id"].endswith(dropped),
             "dropped_by": "low" if row["annotation_id"].endswith(dropped) else None, "value": row["score"]}
            for source, some in said.items() for row in some
        ]  # fmt: skip
        facts = {
            "rows": len(verdicts),
            "fingerprint": "f",
            "inputs": digest({source: source for source in said if judged_in(source, round_)}),
        }
        name = f"verdicts/{round_}/{shard}.parquet"
        write_shard(dataset.store, name, pa.Table.from_pylist(verdicts, VERDICTS), VERDICTS, facts)


def edit(
    dataset: Dataset, file: str, change: Callable[[list[Row]], list[Row] | None], **provenance: Any
) -> None:
    """Rewrite one shard: `change` alters its rows in place, or gives others. Its provenance says so, and `provenance`."""
    table = read_table(dataset.store, f"{file}.parquet")
    rows = table.to_pylist()
    changed = change(rows)
    rows = rows if changed is None else changed
    schema = SCHEMAS[file.split("/")[0]]
    before = read_provenance(dataset.store, f"{file}.parquet") or {}
    facts = {**before, "rows": len(rows), **provenance}
    write_shard(dataset.store, f"{file}.parquet", pa.Table.from_pylist(rows, schema), schema, facts)
