"""Rules on boxes per second of one core, beside the same rules but suppression as one DuckDB query.

python benchmarks/region_filters.py [images [images per shard]]

Ten drawn boxes an image, one in three a duplicate of another. Tables lie in memory; both sides end with
one verdict per box. The default is a million images in shards of 1,000, judged shard by shard.
"""

from __future__ import annotations

import resource
import sys
import time

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.recipe import FilterPart, Where
from data_engine.schema import ANNOTATIONS
from data_engine.verdicts import Judge
from filters.most_boxes import MostBoxes
from filters.nms import Nms
from filters.sane_box import SaneBox
from filters.score import MinimumScore

BOXES, CLASSES, WIDTH, HEIGHT = 10, 20, 640, 480

QUERY = f"""
    SELECT annotation_id, CASE WHEN score < 0.3 THEN 'score'
        WHEN NOT (w > 0 AND h > 0 AND box[1] >= -1 AND box[2] >= -1 AND box[3] <= {WIDTH + 1} AND box[4] <= {HEIGHT + 1}
                  AND w * h <= {WIDTH * HEIGHT} AND greatest(w, h) <= 20 * least(w, h)) THEN 'sane'
        WHEN row_number() OVER (PARTITION BY image_id ORDER BY score DESC) > 8 THEN 'most' END AS dropped_by
    FROM (SELECT *, box[3] - box[1] AS w, box[4] - box[2] AS h FROM said WHERE kind = 'region')
"""


def shard(number: int, images: int) -> tuple[pa.Table, pa.Table]:
    rng = np.random.default_rng(number)
    count = images * BOXES
    size = np.exp(rng.uniform(np.log(10), np.log(300), (count, 2)))
    low = rng.uniform(0, 1, (count, 2)) * (
        np.array([WIDTH, HEIGHT]) - np.minimum(size, [WIDTH - 1, HEIGHT - 1])
    )
    boxes = np.concatenate([low, low + size], axis=1)
    copies = np.flatnonzero((np.arange(count) % 3 == 1) & (np.arange(count) % BOXES > 0))
    boxes[copies] = boxes[copies - 1] + rng.normal(0, 2, (len(copies), 4))
    classes = rng.integers(0, CLASSES, count)
    classes[copies] = classes[copies - 1]
    ids = [f"{number:016x}{i:016x}" for i in range(count)]
    pictures = [f"{number:016x}{i:016x}" for i in range(images)]
    said = pa.table(
        {
            "annotation_id": ids,
            "image_id": pa.array(pictures).take(pa.array(np.repeat(np.arange(images), BOXES))),
            "kind": pa.repeat("region", count),
            "granularity": pa.repeat("phrase", count),
            "text": pa.array([f"class {i}" for i in range(CLASSES)]).take(pa.array(classes)),
            "parent_id": pa.nulls(count, pa.string()),
            "span": pa.nulls(count, ANNOTATIONS.field("span").type),
            "box": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel(), pa.float32()), 4),
            "quad": pa.nulls(count, ANNOTATIONS.field("quad").type),
            "mask": pa.nulls(count, ANNOTATIONS.field("mask").type),
            "score": pa.array(rng.uniform(0, 1, count), pa.float32()),
            "source": pa.repeat("detector", count),
            "round": pa.array(np.zeros(count, np.int32)),
        }
    ).cast(ANNOTATIONS)
    sizes = pa.table({"image_id": pictures, "width": [WIDTH] * images, "height": [HEIGHT] * images})
    return said, sizes


def main(images: int, at_once: int) -> None:
    rules = {"score": MinimumScore(0.3), "sane": SaneBox(), "nms": Nms(0.5), "most": MostBoxes(8)}
    part = FilterPart(use="filters.nms:Nms", where=Where(kind=["region"]))
    judge = Judge(dict.fromkeys(rules, part), rules)
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    ours = theirs = 0.0
    boxes = dropped = 0
    for number in range(max(1, images // at_once)):
        said, sizes = shard(number, at_once)
        start = time.process_time()
        verdicts = judge(said, 0, sizes)
        middle = time.process_time()
        plain = connection.sql(QUERY).to_arrow_table()
        ours, theirs = ours + middle - start, theirs + time.process_time() - middle
        assert plain.num_rows == verdicts.num_rows
        boxes += verdicts.num_rows
        dropped += pc.sum(pc.equal(verdicts["dropped_by"], "nms")).as_py() or 0
    print(
        f"{boxes:,} boxes, {dropped:,} suppressed: {boxes / ours:,.0f} a second of one core; one DuckDB query without "
        f"suppression {boxes / theirs:,.0f}; ratio {ours / theirs:.2f}; "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at most"
    )


if __name__ == "__main__":
    main(*([int(value) for value in sys.argv[1:]] + [1_000_000, 1000][len(sys.argv) - 1 :]))
