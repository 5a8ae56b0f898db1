"""Drop what people marked as bad while they looked at the data set (`fde view`, docs/viewer.md)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.schema import REVIEW, REVIEWER

VERSION = 1


class Reviewed:
    """Drops statements that a person marked as bad; those marked good, and those nobody marked, stay.

    Its value is the mark: 1 good, 0 bad. `reviewer` is the source of the marks. Its `where` must let it see
    the marks as well as the statements (no `source`, or `human-review` among them), and it stands before
    filters that drop by score, for a bad mark is a row with the score 0.
    """

    def __init__(self, reviewer: str = REVIEWER) -> None:
        self.reviewer = reviewer

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.fill_null(pc.greater(self.values(annotations), 0.5), True)

    def values(self, annotations: pa.Table) -> pa.Array:
        is_mark = pc.and_(
            pc.equal(annotations["source"], self.reviewer),
            pc.fill_null(pc.equal(annotations["granularity"], REVIEW), False),
        )
        marks = annotations.select(["parent_id", "score"]).filter(is_mark).combine_chunks()
        place = pc.index_in(annotations["annotation_id"], marks["parent_id"].combine_chunks())
        return marks["score"].take(place).combine_chunks()
