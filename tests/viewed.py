"""Data sets to look at, made of scenes with their truth, and a plain HTTP client for the viewer's server."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.recipe import Recipe, read_recipe
from data_engine.scenes.write import make_scenes
from pipelines.filter import filter_dataset
from pipelines.viewer.serve import Address

HOSTILE = "<img src=x onerror=\"window.hacked=1\"> a <script>window.hacked=1</script> & 'cup' 😀 red dog"

FILTERS = """
name: looks
filters:
  low-score:
    use: filters.score:MinimumScore
    args: {minimum: 0.5}
    where: {source: [detector]}
"""


def recipe() -> Recipe:
    return read_recipe(FILTERS, "tests")


def scenes(folder: Path, count: int = 60, shard_size: int = 20, embed: bool = False) -> Dataset:
    """Scenes with their truth; a source `detector` that repeats its regions, every other with a low score
    and a box that is off, which a filter then drops; and a hostile text on the first image."""
    make_scenes(folder / "scenes", count, seed=7)
    url = str(folder / "dataset")
    ingest(str(folder / "scenes"), url, shard_size=shard_size, embed=embed)
    dataset = Dataset.open(url)
    for shard in dataset.shards:
        rows = AnnotationRows("detector")
        regions = [
            row
            for row in dataset.annotations("truth", shard).to_pylist()
            if row["kind"] == "region" and row["granularity"] == "phrase" and row["mask"] is None
        ]
        for number, row in enumerate(regions):
            x0, y0, x1, y1 = row["box"]
            box = (x0, y0, x0 + (x1 - x0) / (1 + number % 2 * 2), y1)
            assert (
                rows.add(
                    row["image_id"],
                    [Annotation("region", row["text"], "phrase", box=box, score=0.3 if number % 2 else 0.9)],
                )
                == []
            )
        dataset.write_annotations("detector", shard, rows.table(), {"fingerprint": "x"})
    rows = AnnotationRows("hostile")
    text = Annotation("text", HOSTILE, "brief")
    dog = Annotation(
        "phrase", "red dog", parent=text, span=(len(HOSTILE) - 7, len(HOSTILE)), box=(5, 5, 50, 50)
    )
    first = next(dataset.image_batches("00000", 1, ["image_id"]))["image_id"][0].as_py()
    assert rows.add(first, [text, dog, Annotation("region", "<b>bold</b>", "phrase", box=(1, 1, 9, 9))]) == []
    dataset.write_annotations("hostile", "00000", rows.table(), {"fingerprint": "x"})
    filter_dataset(dataset, recipe())
    return dataset


def ask(
    address: Address, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, Any]:
    """Status, headers and content (JSON read) of one request; `headers` with _ for -."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    try:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        content: Any = response.read()
        if response.headers.get_content_type() == "application/json":
            content = json.loads(content)
        return response.status, response.headers, content
    finally:
        connection.close()


def mark(
    address: Address, shard: str, annotation_id: str, as_: str | None, **headers: str
) -> tuple[int, Any]:
    sent = {"x-fde-viewer": "1", "content-type": "application/json", **headers}
    given = {"shard": shard, "annotation_id": annotation_id, "mark": as_}
    status, _, answer = ask(address, "/api/marks", "POST", given, **sent)
    return status, answer
