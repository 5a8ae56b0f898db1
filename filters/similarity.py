"""Drop what a model that judges statements found unlikely: a text unlike its image, a region's text unlike its crop."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import SpecialistError
from data_engine.recipe import Where
from data_engine.where_sql import quoted, says

VERSION = 1


class MinimumSimilarity:
    """Keeps statements to which the source `scorer` gave `minimum` or more; those that it did not judge stay.

    What it gave stands in rows that hang on the statements (specialists.scorer:Scorer and its like), so its
    `where` must let both through, and they cost no model here: another threshold is a matter of seconds.
    LAION kept 0.28 and more of ViT-B/32's similarity; DataComp's best 30 % lie above 0.281. `by_granularity`: other
    minima for some kinds of text: crops are small pictures of few words, and score lower. `measure`: only scores of
    this granularity, where a judge gives several (specialists.florence2.likelihood:Likelihood: `named`, `located`,
    `told`). Of several scores of one statement the highest counts; it is the value.

    Raises SpecialistError where the whole data set has not one score.
    """

    columns = ("annotation_id", "granularity", "parent_id", "score", "source")

    def __init__(
        self,
        scorer: str,
        minimum: float,
        by_granularity: Mapping[str, float] | None = None,
        measure: str | None = None,
    ) -> None:
        self.scorer = scorer
        self.minimum = minimum
        self.by_granularity = dict(by_granularity or {})
        self.measure = measure

    def survey(self, dataset: Dataset, where: Where) -> str:
        """Look for a score in the whole data set: one shard may have none."""
        scored = f"source = {quoted(self.scorer)} AND parent_id IS NOT NULL AND score IS NOT NULL"
        if self.measure is not None:
            scored += f" AND granularity = {quoted(self.measure)}"
        if not says(dataset, where, scored):
            raise SpecialistError(
                f"{self.scorer!r} scored nothing that `where` lets through",
                "name the scorer, and let `where` see its rows as well as what it judged (no `source`)",
            )
        return ""

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        least = np.full(annotations.num_rows, self.minimum, np.float32)
        for name, value in self.by_granularity.items():
            least[pc.fill_null(pc.equal(annotations["granularity"], name), False).to_numpy()] = value
        return pc.fill_null(pc.greater_equal(self.values(annotations), pa.array(least)), True)

    def values(self, annotations: pa.Table) -> pa.Array:
        scores = _scores(annotations, self.scorer, self.measure)
        at = pc.index_in(annotations["annotation_id"], scores["parent_id"])
        return scores["score_max"].take(at).combine_chunks()


def _scores(annotations: pa.Table, scorer: str, measure: str | None) -> pa.Table:
    """The best score of each statement that has one: parent_id, score_max."""
    wanted = pc.and_(pc.equal(annotations["source"], scorer), pc.is_valid(annotations["parent_id"]))
    wanted = pc.and_(wanted, pc.is_valid(annotations["score"]))
    if measure is not None:
        wanted = pc.and_(wanted, pc.fill_null(pc.equal(annotations["granularity"], measure), False))
    found = annotations.select(["parent_id", "score"]).filter(wanted)
    return found.group_by("parent_id").aggregate([("score", "max")])
