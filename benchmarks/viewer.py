"""How long the viewer's pages take on a large made-up data set, over HTTP as the browser asks.

    python benchmarks/viewer.py [ANNOTATIONS] [FOLDER]

10,000,000 annotations by default (1.2 GB), in a temporary folder that is removed afterwards; a FOLDER that is
given is kept, and used again. A search that is not over when the server's time for a page is goes on with its
cursor: `first answer` is what a person waits for until something shows, `whole page` until the page is full or
all shards were searched.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

from qa_dataset import make

from data_engine.dataset import Dataset
from data_engine.query import sql
from pipelines.viewer.serve import Address, serving

SEARCHES: dict[str, dict[str, str]] = {
    "all images": {},
    "a page in the middle": {"after": "MIDDLE"},
    "the page before it": {"before": "MIDDLE"},
    "words: red cup": {"text": "red cup"},
    "one label of 365": {"label": "thing 7"},
    "label, source, score from 0.99": {"label": "thing 7", "source": "detector", "minimum": "0.99"},
    "phrases dropped by nms": {"kind": "phrase", "dropped_by": "nms"},
    "SQL: large boxes": {"condition": "box_area(box) > 0.9 * width * height"},
    "an image's id, in the last shard": {"image": "LAST"},
    "words that nobody said": {"text": "zeppelin"},
    "words nobody said, dropped": {"text": "zeppelin", "kept": "no"},
}


def ask(address: Address, path: str, given: dict[str, str]) -> tuple[dict, float]:
    url = f"http://{address.host}:{address.port}{path}?{urllib.parse.urlencode(given)}"
    started = time.perf_counter()
    with urllib.request.urlopen(url) as response:
        answer = json.load(response)
    return answer, time.perf_counter() - started


def whole_page(address: Address, given: dict[str, str]) -> tuple[float, float, int, int]:
    """Seconds of the first answer and of the whole page, images found, and requests made."""
    started, first, found, requests = time.perf_counter(), 0.0, 0, 0
    side = "before" if "before" in given else "after"
    while True:
        answer, seconds = ask(address, "/api/search", {**given, "size": str(48 - found)})
        first, requests = first or seconds, requests + 1
        found += len(answer["images"])
        if answer["next"] is None or found >= 48:
            return first, time.perf_counter() - started, found, requests
        given = {**given, side: answer["next"]}


def main(annotations: int, folder: str | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        url = folder or f"{temporary}/dataset"
        if not (Path(url) / "dataset.json").is_file():
            started = time.perf_counter()
            make(url, annotations)
            print(f"made {url} in {time.perf_counter() - started:.0f} s")
        dataset = Dataset.open(url)
        middle = f"{len(dataset.shards) // 2}.100"
        last = sql(
            dataset, f"SELECT image_id FROM read_parquet('{url}/images/{dataset.shards[-1]}.parquet') LIMIT 1"
        )
        names = {"MIDDLE": middle, "LAST": last["image_id"][0].as_py()}
        started = time.perf_counter()
        with serving(dataset) as (address, _):
            print(f"{'':36}{'first answer':>14}{'whole page':>12}{'images':>8}{'requests':>10}")
            print(f"{'starting':36}{time.perf_counter() - started:12.2f} s")
            print(f"{'what there is (overview)':36}{ask(address, '/api/overview', {})[1]:12.2f} s")
            for name, given in SEARCHES.items():
                first, whole, found, requests = whole_page(
                    address, {key: names.get(value, value) for key, value in given.items()}
                )
                print(f"{name:36}{first:12.2f} s{whole:10.2f} s{found:8}{requests:10}", flush=True)
            shown = ask(address, "/api/search", {"size": "1", "after": middle})[0]["images"][0]
            seconds = ask(address, f"/api/images/{shown['shard']}/{shown['image_id']}", {})[1]
            print(f"{'one story':36}{seconds:12.2f} s")
        rows = sql(dataset, "SELECT count(*) AS n FROM annotations")["n"][0].as_py()
        print(
            f"{rows:,} annotations in {len(dataset.shards)} shards; "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at most"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000, sys.argv[2] if len(sys.argv) > 2 else None)
