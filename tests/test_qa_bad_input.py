"""QA of data sets that lack something or hold what they should not: it still runs, and says what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.dataset import Dataset, DatasetInfo
from data_engine.qa.checks import run_checks
from data_engine.qa.queries import Query
from data_engine.qa.reports import report_names, run_report
from data_engine.qa.scope import find_scope
from data_engine.qa.session import open_session
from data_engine.qa.survey import survey
from data_engine.schema import ANNOTATIONS
from pipelines.qa import qa
from tests.damage import damage_pages
from tests.qa_sets import edit, hand_made, statement
from tests.test_query import fill


def look(dataset: Dataset) -> tuple[set[str], dict[str, list[dict]]]:
    """The checks that failed, and every report's rows; no check or report may end with an error."""
    session = open_session(Dataset.open(dataset.url))
    try:
        checks = run_checks(session)
        assert [check.error for check in checks if check.error] == []
        reports = {name: run_report(session.connection, name).to_pylist() for name in report_names()}
        return {check.query.name for check in checks if not check.passed}, reports
    finally:
        session.close()


def absent(reports: dict[str, list[dict]]) -> list[str]:
    return [row["what"] for row in reports["absent"]]


def test_an_empty_data_set(tmp_path):
    info = DatasetInfo("0" * 16, "nowhere", "folder", "0" * 32, 0, 0, 1000, False, [], "0")
    failed, reports = look(Dataset.create(str(tmp_path / "empty"), info))
    assert failed == set()
    assert len(absent(reports)) == 11 and absent(reports)[0] == "images"
    assert len(reports["table2"]) == 8 and all(row["image_annotations"] == 0 for row in reports["table2"])
    assert len(reports["table3"]) == 3


@pytest.mark.parametrize("kind", ["text", "region", "phrase"])
def test_a_data_set_without_some_kind(tmp_path, kind):
    dataset = hand_made(tmp_path)
    for folder in ("verdicts/0", "verdicts/1"):
        dataset.store.delete_folder(folder)
    for source in dataset.sources():
        for shard in dataset.shards:
            edit(
                dataset,
                f"annotations/{source}/{shard}",
                lambda rows: [row for row in rows if row["kind"] != kind],
            )
    failed, reports = look(dataset)
    assert failed == ({"orphan_parents"} if kind == "text" else set())
    wanted = {"text": "brief texts", "region": "regions with a class", "phrase": "phrases with a box"}
    assert wanted[kind] in absent(reports)


def test_a_half_written_data_set(tmp_path):
    dataset = hand_made(tmp_path)
    dataset.store.delete_folder("verdicts/1")
    dataset.store.delete("annotations/grounder/00001.parquet")
    dataset.store.delete("verdicts/0/00001.parquet")
    failed, reports = look(dataset)
    assert failed == {"missing_shards", "images_without_verdict"}
    rows = {(r["kind"], r["granularity"]): r["regions"] for r in reports["table2"]}
    assert rows["triplets", "brief"] == 4


def test_a_missing_shard_of_images(tmp_path):
    dataset = hand_made(tmp_path)
    dataset.store.delete("images/00001.parquet")
    failed, reports = look(dataset)
    assert {"missing_shards", "dataset_counts", "unknown_images"} <= failed
    assert {r["what"]: r["n"] for r in reports["overview"]}["images"] == 2


@pytest.mark.parametrize("how", ["cut", "empty", "text"])
def test_a_damaged_shard_is_left_out_and_named(tmp_path, how):
    dataset = hand_made(tmp_path)
    path = Path(dataset.store.path("annotations/detector/00000.parquet"))
    path.write_bytes({"cut": path.read_bytes()[:-9], "empty": b"", "text": b"PAR1" + b"x" * 99}[how])
    session = open_session(dataset)
    rows = run_checks(
        session, [Query("damaged", "", "", "SELECT file, problem FROM shards WHERE state = 'damaged'")]
    )
    session.close()
    assert rows[0].sample["file"].to_pylist() == ["annotations/detector/00000.parquet"]
    failed, reports = look(dataset)
    assert "damaged_shards" in failed
    assert {r["class"]: r["regions"] for r in reports["classes"]} == {"dog": 7, "sofa": 1}


@pytest.mark.parametrize("name", ["annotations/detector/00000", "verdicts/1/00001", "images/00000"])
def test_a_shard_that_breaks_while_it_is_read_is_left_out_and_named(tmp_path, name):
    dataset = hand_made(tmp_path)
    damage_pages(Path(dataset.store.path(f"{name}.parquet")))
    told: list[str] = []
    found = qa(dataset, find_scope(dataset), say=told.append)
    assert [line for line in told if "; again, without" in line and "\n" not in line]
    assert [check.error for check in found.checks if check.error] == []
    damaged = next(check for check in found.checks if check.query.name == "damaged_shards")
    assert damaged.sample["file"].to_pylist() == [f"{name}.parquet"]
    assert all(isinstance(rows, pa.Table) for _, rows in found.reports.values())


def test_shards_of_mixed_format_versions(tmp_path):
    dataset = hand_made(tmp_path)
    path = dataset.store.path("annotations/detector/00000.parquet")
    table = pq.read_table(path)
    metadata = table.schema.metadata
    older = table.drop_columns(["quad", "round"]).append_column("mood", pa.array(["glad"] * table.num_rows))
    at = older.column_names.index("score")
    older = older.set_column(at, "score", older["score"].cast(pa.float64()))
    older = older.set_column(0, "annotation_id", older["annotation_id"].cast(pa.large_string()))
    newer = {**metadata, b"fde": json.dumps(json.loads(metadata[b"fde"]) | {"format": 2}).encode()}
    pq.write_table(older.replace_schema_metadata(newer), path)
    odd = pq.read_table(dataset.store.path("annotations/scorer/00001.parquet"))
    odd = odd.set_column(odd.column_names.index("box"), "box", pa.array(["none"]))
    pq.write_table(odd, dataset.store.path("annotations/scorer/00001.parquet"))

    (row,) = [s for s in survey(dataset).shards if s.file == "annotations/detector/00000.parquet"]
    assert row.missing_columns == ("quad", "round") and row.format == 2
    failed, reports = look(dataset)
    assert failed == {"shard_columns"}
    assert {r["class"]: r["regions"] for r in reports["classes"]} == {"dog": 9, "sofa": 3}
    detector = [r for r in reports["scores"] if r["source"] == "detector"]
    assert sum(r["statements"] for r in detector) == 6


@pytest.mark.parametrize(
    "text", ["dog " * 250_000, "<script>alert(1)</script> & <b>\x00'\"; DROP TABLE images; --", "", "\n\t "]
)
def test_texts_that_no_one_expects(tmp_path, text):
    dataset = hand_made(tmp_path)
    row = statement("odd", "a", "captioner", "text", granularity="brief", text=text)
    label = statement("odd2", "a", "captioner", "region", granularity="phrase", text=text, box=[1, 1, 2, 2])
    edit(dataset, "annotations/captioner/00000", lambda rows: [*rows, row, label])
    failed, reports = look(dataset)
    assert failed - {"verdict_counts"} == ({"long_texts"} if len(text) > 100_000 else set())
    assert text.lower() in {r["class"] for r in reports["classes"]}


def test_images_that_have_been_deleted(tmp_path):
    dataset = hand_made(tmp_path)
    shutil.rmtree(tmp_path / "pictures")
    failed, reports = look(dataset)
    assert failed == {"image_files"}
    assert {r["what"]: r["n"] for r in reports["overview"]}["images"] == 3


def test_numbers_that_are_none(tmp_path):
    dataset = hand_made(tmp_path)
    nan, inf = float("nan"), float("inf")
    odd = [
        statement(
            f"odd{n}", "a", "detector", "region", granularity="phrase", text="odd", box=box, score=score
        )
        for n, (box, score) in enumerate(
            [([0, 0, nan, nan], nan), ([-inf, 0, inf, 9], inf), ([9, 9, 1, 1], -1.0)]
        )
    ]
    edit(dataset, "annotations/detector/00000", lambda rows: [*rows, *odd])
    failed, _ = look(dataset)
    assert {"boxes", "scores"} <= failed


def test_a_data_set_that_duckdb_cannot_open_itself(tmp_path):
    dataset = fill("memory://qa/remote", tmp_path / "pictures")
    session = open_session(dataset)
    checks = run_checks(session)
    session.close()
    assert {check.query.name: check.error or check.rows for check in checks if not check.passed} == {}


def test_annotations_without_any_row(tmp_path):
    dataset = hand_made(tmp_path)
    for shard in dataset.shards:
        dataset.write_annotations("silent", shard, ANNOTATIONS.empty_table(), {"fingerprint": "s", "rows": 0})
    failed, _ = look(dataset)
    assert failed == {"stale_shards"}  # round 0 was given before there was such a source
