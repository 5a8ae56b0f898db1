"""Marks: a person says of a statement that it is good or bad. One more source of annotations.

A mark is a row of source `human-review`: kind of, and parent, the statement, granularity `review`, score 1
(good) or 0 (bad). It lies in annotations/human-review/<shard>.parquet, where `filters.reviewed:Reviewed`
and whatever reads scores finds it; a statement has at most one.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_engine import __version__
from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import QueryError
from data_engine.fingerprint import digest
from data_engine.schema import ANNOTATIONS, REVIEW, REVIEWER
from data_engine.storage import storage_errors
from pipelines.viewer.tables import Relations, Tables

SCORES = {"good": 1.0, "bad": 0.0}

_threads = threading.Lock()


def mark(tables: Tables, shard: str, annotation_id: str, as_: str | None) -> None:
    """Mark a statement as `good` or `bad`, or take its mark back (None).

    The shard's marks are written anew in one step, one writer after another. Raises QueryError where there
    is no such statement, StorageError where the disk refuses, and DatasetError where the marks that there
    are cannot be read: then nothing is written.
    """
    if as_ is not None and as_ not in SCORES:
        raise QueryError(f"a mark {as_[:40]!r}", f"it is one of {', '.join(SCORES)}, or null")
    if shard not in tables.shards:
        raise QueryError(f"there is no shard {shard[:40]!r}", f"the data set has {len(tables.shards)}")
    dataset = tables.dataset
    image_id, kind = _statement(tables, shard, annotation_id)
    with _alone(dataset):
        name = f"annotations/{REVIEWER}/{shard}.parquet"
        before = (
            dataset.annotations(REVIEWER, shard) if dataset.store.exists(name) else ANNOTATIONS.empty_table()
        )
        others = before.filter(pc.invert(pc.equal(before["parent_id"], annotation_id)))
        table = pa.concat_tables([others, _row(image_id, kind, annotation_id, as_)])
        if table.num_rows:
            said = [table["annotation_id"].to_pylist(), table["score"].to_pylist()]
            provenance = {
                "stage": REVIEWER,
                "fingerprint": digest(said),
                "rows": table.num_rows,
                "version": __version__,
            }
            dataset.write_annotations(REVIEWER, shard, table, provenance)
        else:
            dataset.store.delete(name)
    tables.changed()


def _row(image_id: str, kind: str, annotation_id: str, as_: str | None) -> pa.Table:
    rows = AnnotationRows(REVIEWER)
    if as_ is not None:
        rows.add(image_id, [Annotation(kind, granularity=REVIEW, parent=annotation_id, score=SCORES[as_])])
    return rows.table()


def _statement(tables: Tables, shard: str, annotation_id: str) -> tuple[str, str]:
    def build(r: Relations) -> tuple[str, list[str]]:
        return (
            f"SELECT image_id, kind FROM {r.annotations} WHERE annotation_id = ? AND source <> ?",  # noqa: S608
            [annotation_id, REVIEWER],
        )

    found = tables.select([shard], build).to_pylist()
    if not found:
        raise QueryError(f"shard {shard} has no statement {annotation_id[:40]!r}", "load the page again")
    return found[0]["image_id"], found[0]["kind"]


@contextlib.contextmanager
def _alone(dataset: Dataset) -> Iterator[None]:
    """One writer at a time: of this process, and on this machine's disks of any other viewer too."""
    with _threads:
        if not dataset.store.local:
            yield
            return
        path = Path(dataset.store.path(".tmp")) / f"{REVIEWER}.lock"
        with storage_errors(str(path)):
            path.parent.mkdir(exist_ok=True)
            with path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
