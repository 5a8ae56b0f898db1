"""Noisy labels of drawn scenes merged with a better student's, through the runner: the merged ones are nearer to truth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.quality.captions import caption_quality
from data_engine.quality.detection import average_precision
from data_engine.query import sql
from data_engine.recipe import Recipe, read_recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.attributes import Reader
from data_engine.scenes.write import make_scenes
from pipelines.annotate import annotate

# pycocotools.mask.decode, written before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

RECIPE = """
name: merge
specialists:
  noisy:
    use: specialists.noise:Noise
    needs: [truth]
    args: {seed: 1, rates: &rates {RATES}, classes: &classes [circle, square, triangle, star, heart]}
  student:
    use: specialists.noise:Noise
    needs: [truth]
    args: {seed: 2, rates: {LOW}, classes: *classes}
  doubt:
    use: tests.toy_doubt:Doubts
    needs: [truth, noisy, student]
    args: {sources: [noisy, student]}
  merged:
    use: specialists.merge:Merge
    needs: [noisy, student, doubt]
    args: {originals: [noisy], student: student, doubt: doubt}
"""
ERRORS = (
    "missed", "merged", "split", "jittered", "mislabelled", "invented",
    "wrong_link", "dropped_link", "attribute_flipped", "truncated", "alt_text",
)  # fmt: skip


def recipe() -> Recipe:
    text = RECIPE
    for name, rate in (("RATES", 0.3), ("LOW", 0.1)):
        text = text.replace(name, ", ".join(f"{error}: {rate}" for error in ERRORS))
    return read_recipe(text, "merge.yaml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("merge")
    make_scenes(folder / "scenes", 120, seed=77, size=(160, 120))
    ingest(str(folder / "scenes"), str(folder / "ds"), shard_size=40)
    dataset = Dataset.open(str(folder / "ds"))
    annotate(dataset, recipe(), runner="inline", reporter=Reporter(terminal=False))
    return dataset


def found(dataset: Dataset, query: str) -> Counter[Any]:
    return Counter(tuple(row.values()) for row in sql(dataset, query).to_pylist())


def f1_of_links(dataset: Dataset, source: str) -> float:
    """Of phrases with their boxes: those that truth has, word for word and at IoU 0.5."""
    right, said, true = (
        sql(
            dataset,
            f"""WITH p AS (SELECT * FROM triplets WHERE mask IS NULL OR true)
        SELECT count(DISTINCT p.annotation_id) AS right,
            (SELECT count(DISTINCT annotation_id) FROM p WHERE source = '{source}') AS said,
            (SELECT count(DISTINCT annotation_id) FROM p WHERE source = 'truth') AS true
        FROM p JOIN p t ON t.image_id = p.image_id AND t.granularity = p.granularity AND t.phrase = p.phrase
        WHERE p.source = '{source}' AND t.source = 'truth' AND box_iou(p.box, t.box) >= 0.5""",
        )
        .to_pylist()[0]
        .values()
    )
    return 2 * right / (said + true)


def true_texts(dataset: Dataset, source: str) -> float:
    """The share of captions that are truth's."""
    reader = Reader()
    return float(np.mean([
        caption_quality(dataset, source, "truth", reader.judge, granularity=g).true
        for g in ("brief", "detailed", "more_detailed")
    ]))  # fmt: skip


def test_merged_statements_are_nearer_to_truth_than_the_originals(dataset):
    sources = ("noisy", "student", "merged")
    boxes = {s: average_precision(dataset, s, "truth", threshold=0).f1 for s in sources}
    links = {s: f1_of_links(dataset, s) for s in sources}
    texts = {s: true_texts(dataset, s) for s in sources}
    print(boxes, links, texts)
    for figures in (boxes, links, texts):
        assert figures["merged"] > figures["noisy"]
    assert boxes["merged"] > boxes["student"]


def test_sql_shows_what_was_changed_and_why(dataset):
    why = found(dataset, "SELECT change, kind, granularity, is_mask FROM changes WHERE source = 'merged'")
    print(why)
    counts = sql(
        dataset,
        "SELECT change, kind, count(*) n FROM changes WHERE source = 'merged' GROUP BY ALL ORDER BY ALL",
    )
    print(counts.to_pylist())
