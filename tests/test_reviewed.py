"""What people marked bad is dropped by the next filtering, with what hangs on it; nothing else is."""

from __future__ import annotations

import pyarrow as pa

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.query import sql
from data_engine.recipe import read_recipe
from data_engine.schema import REVIEW, REVIEWER
from filters.reviewed import Reviewed
from pipelines.filter import filter_dataset
from pipelines.viewer.marks import mark
from pipelines.viewer.tables import Tables
from tests.viewed import scenes

IMAGE = "1" * 32


def test_bad_goes_good_and_unmarked_stay():
    said = AnnotationRows("detector")
    regions = [Annotation("region", name, "phrase", box=(0, 0, i + 1, 9)) for i, name in enumerate("abc")]
    assert said.add(IMAGE, regions) == []
    ids = said.table()["annotation_id"].to_pylist()
    marks, other = AnnotationRows(REVIEWER), AnnotationRows("scorer")
    assert (
        marks.add(
            IMAGE,
            [
                Annotation("region", granularity=REVIEW, parent=i, score=s)
                for i, s in zip(ids, (0, 1), strict=False)
            ],
        )
        == []
    )
    # A model's low score is no mark.
    assert other.add(IMAGE, [Annotation("region", parent=ids[2], score=0.0)]) == []
    table = pa.concat_tables([said.table(), marks.table(), other.table()])
    assert Reviewed()(table).to_pylist() == [False, True, True, True, True, True]
    assert Reviewed().values(table).to_pylist() == [0, 1, None, None, None, None]
    assert Reviewed()(table.slice(0, 0)).to_pylist() == []


def test_a_mark_made_in_the_viewer_changes_the_next_verdicts(tmp_path):
    dataset = scenes(tmp_path, 2, 1)
    recipe = read_recipe("name: r\nfilters: {reviewed: {use: 'filters.reviewed:Reviewed'}}", "tests")
    assert filter_dataset(dataset, recipe).dropped == {}
    text = sql(dataset, "SELECT annotation_id FROM texts WHERE source = 'hostile'")["annotation_id"][
        0
    ].as_py()
    mark(Tables(dataset), "00000", text, "bad")
    summary = filter_dataset(dataset, recipe)
    # The text, and what hangs on it: its phrase and the mark itself. The other shard is not judged again.
    assert summary.dropped == {"reviewed": 1, "parent": 2} and summary.shards_skipped == 1
    mark(Tables(dataset), "00000", text, "good")
    assert filter_dataset(dataset, recipe).dropped == {}
