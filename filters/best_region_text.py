"""Of the candidate texts of each region keep the one that fits its crop best.

FLD-5B chooses so among the category, the caption of the crop and the caption's noun chunks (arXiv
2311.06242, section 4.1), by an image-text model. Here that is a scorer: `specialists.scorer:Scorer`
with the candidates' sources under its `needs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_engine.dataset import Dataset
from data_engine.errors import SpecialistError
from data_engine.recipe import Where
from data_engine.where_sql import quoted, says

VERSION = 1

CANDIDATES = ("phrase", "brief", "noun_chunk")
"""Granularities of regions among which is chosen: neither lines of text nor what noise did."""


class BestRegionText:
    """Keeps of each region's texts the one to which the source `scorer` gave the highest score.

    A region's texts are its own row's and those of the rows that name it as their parent. A loser goes
    with every score of it; the value stored is the score that `scorer` gave it. Where the region's own
    text loses, only that text is dropped: the winner, the masks and all else that hangs on the row
    stay (`cascades`), and the winner has the box.

    - Equal scores: the region's own text, else the one said first.
    - A text that `scorer` did not score neither wins nor loses: it is kept. Of several scores of one
      text the highest counts.
    - What earlier filters dropped takes no part.

    Its `where` must let it see candidates and scores: `kind: region` and no `source`, or the sources of
    both. Raises SpecialistError when the whole data set has regions with several texts, and not one score.
    """

    cascades = False
    columns = ("annotation_id", "kind", "granularity", "text", "parent_id", "box", "mask", "score", "source")

    def __init__(self, scorer: str) -> None:
        self.scorer = scorer

    def survey(self, dataset: Dataset, where: Where) -> str:
        """Look for a score of a region in the whole data set: one shard may have none."""
        scored = f"source = {quoted(self.scorer)} AND parent_id IS NOT NULL AND score IS NOT NULL"
        named = f"granularity IN ({', '.join(quoted(name) for name in CANDIDATES)})"
        further = f"parent_id IS NOT NULL AND text IS NOT NULL AND kind = 'region' AND {named}"
        if not says(dataset, where, scored) and says(dataset, where, further):
            raise SpecialistError(
                f"regions have several texts, and none has a score by {self.scorer!r}",
                "run that scorer with the texts' sources under its `needs`, and let the filter's `where` be "
                "kind: region, without a source",
            )
        return ""

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        candidates = _candidates(annotations)
        scores = self.values(annotations).to_numpy(zero_copy_only=False)
        scored = candidates.rows[~np.isnan(scores[candidates.rows])]
        regions = candidates.region[scored]
        # Region by region, the best first.
        order = np.lexsort((scored, ~candidates.own[scored], -scores[scored], regions))
        scored, regions = scored[order], regions[order]
        keep = np.ones(annotations.num_rows, bool)
        keep[scored[1:][regions[1:] == regions[:-1]]] = False
        losers = annotations["annotation_id"].filter(pa.array(~keep))
        judged = np.asarray(pc.is_in(annotations["parent_id"], losers).to_numpy())
        keep[judged & _is_score(annotations)] = False
        return pa.array(keep)

    def values(self, annotations: pa.Table) -> pa.Array:
        """The score that `scorer` gave each candidate; of a row that is a score, that score."""
        is_score = _is_score(annotations)
        by_scorer = pc.equal(annotations["source"], self.scorer).to_numpy() & is_score
        given = annotations.select(["parent_id", "score"]).filter(pa.array(by_scorer))
        best = given.group_by("parent_id").aggregate([("score", "max")])
        place = pc.index_in(annotations["annotation_id"], best["parent_id"].combine_chunks())
        own = pc.if_else(pa.array(is_score), annotations["score"], pa.scalar(None, pa.float32()))
        return pc.coalesce(own, best["score_max"].take(place)).combine_chunks()


@dataclass(frozen=True)
class _Candidates:
    """`rows` are indices into the table; `region` (a number for each region) and `own` (whether the row
    is the region itself) have one value per row of the table."""

    rows: NDArray[np.int64]
    region: NDArray[np.int64]
    own: NDArray[np.bool_]


def _candidates(annotations: pa.Table) -> _Candidates:
    parent = annotations["parent_id"]
    region = pc.coalesce(parent, annotations["annotation_id"]).combine_chunks().dictionary_encode()
    named = pc.and_(
        pc.equal(annotations["kind"], "region"),
        pc.is_in(annotations["granularity"], pa.array(CANDIDATES)),
    )
    rows = np.flatnonzero(pc.and_(named, pc.is_valid(annotations["text"])).to_numpy())
    return _Candidates(rows, region.indices.to_numpy().astype(np.int64), pc.is_null(parent).to_numpy())


def _is_score(annotations: pa.Table) -> NDArray[np.bool_]:
    empty = [pc.is_null(annotations[name]) for name in ("text", "box", "mask")]
    scored = pc.and_(pc.is_valid(annotations["score"]), pc.is_valid(annotations["parent_id"]))
    return np.asarray(pc.and_(scored, pc.and_(empty[0], pc.and_(empty[1], empty[2]))).to_numpy())
