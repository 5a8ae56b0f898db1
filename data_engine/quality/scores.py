"""What a scorer's scores are worth: does it put right statements above wrong ones?

The figure is the area under the ROC curve: the share of pairs of a right and a wrong statement of which
the right one scores higher, a tie counting one half. 0.5 is chance, and no threshold is involved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.quality.coco import check_source

_COLUMNS = ["kind", "granularity", "text", "parent_id", "box", "mask", "score"]


@dataclass(frozen=True)
class RankingQuality:
    """`auc` in 0..1, NaN where either side has no score; `good` and `bad` count scored statements."""

    auc: float
    good: int
    bad: int


def ranking_quality(
    dataset: Dataset,
    scorer: str,
    good: str,
    bad: str,
    *,
    kind: str | None = None,
    granularity: str | None = None,
) -> RankingQuality:
    """How well a source's scores tell the statements of the source `good` from those of `bad`.

    Only scores of a kind and granularity (those of the statement judged), where given. Rows of one shard lie in memory, and four bytes of
    each score of the others. Raises DatasetError when a source is missing.
    """
    for source in (scorer, good, bad):
        check_source(dataset, source)
    parts: dict[str, list[np.ndarray]] = {good: [], bad: []}
    for shard in dataset.shards:
        scores = _scores(dataset.annotations(scorer, shard, _COLUMNS), kind, granularity)
        for source, found in parts.items():
            ids = dataset.annotations(source, shard, ["annotation_id"])["annotation_id"].combine_chunks()
            of_source = scores.filter(pc.is_in(scores["parent_id"], value_set=ids))
            found.append(of_source["score"].combine_chunks().to_numpy(zero_copy_only=False))
    right, wrong = (np.concatenate(parts[source]) for source in (good, bad))
    return RankingQuality(area_under_curve(right, wrong), len(right), len(wrong))


def area_under_curve(good: np.ndarray, bad: np.ndarray) -> float:
    """The share of pairs with the good score above the bad, ties as one half; NaN without any pair."""
    if not len(good) or not len(bad):
        return float("nan")
    ordered = np.sort(bad)
    below = np.searchsorted(ordered, good, "left")
    not_above = np.searchsorted(ordered, good, "right")
    return float((below + not_above).mean() / (2 * len(bad)))


def _scores(table: pa.Table, kind: str | None, granularity: str | None) -> pa.Table:
    """Rows that are a score of a statement and nothing else."""
    alone = pc.and_(pc.is_null(table["text"]), pc.and_(pc.is_null(table["box"]), pc.is_null(table["mask"])))
    scored = pc.and_(pc.is_valid(table["score"]), pc.is_valid(table["parent_id"]))
    rows = table.filter(pc.and_(alone, scored))
    for column, wanted in (("kind", kind), ("granularity", granularity)):
        if wanted is not None:
            rows = rows.filter(pc.equal(rows[column], wanted))
    return rows.select(["parent_id", "score"])
