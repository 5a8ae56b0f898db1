"""Every check passes on a sound data set, and finds the fault that is planted for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.dataset import Dataset
from data_engine.qa import session
from data_engine.qa.checks import CheckResult, check_names, run_checks
from data_engine.qa.queries import built_in
from data_engine.qa.session import open_session
from data_engine.schema import ANNOTATIONS
from data_engine.shards import read_table
from tests.qa_sets import Row, edit, hand_made, said_of

SHARD = "00000"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return hand_made(tmp_path)


def results(dataset: Dataset, *only: str) -> dict[str, CheckResult]:
    opened = session.open_session(Dataset.open(dataset.url))
    checks = built_in("checks")
    try:
        found = run_checks(opened, [checks[name] for name in only] if only else None)
        return {result.query.name: result for result in found}
    finally:
        opened.close()


def in_rows(source: str, letters: str, **change: object) -> Callable[[Dataset], None]:
    """A plant that changes a statement about image a."""

    def plant(dataset: Dataset) -> None:
        def alter(rows: list[Row]) -> None:
            (row,) = [row for row in rows if row["annotation_id"] == "a" + letters]
            row.update(change)

        edit(dataset, f"annotations/{source}/{SHARD}", alter)

    return plant


def in_verdicts(
    alter: Callable[[list[Row]], list[Row] | None], **provenance: object
) -> Callable[[Dataset], None]:
    return lambda dataset: edit(dataset, f"verdicts/1/{SHARD}", alter, **provenance)


def twice(file: str) -> Callable[[Dataset], None]:
    return lambda dataset: edit(dataset, file, lambda rows: [*rows, rows[0]])


def damaged(dataset: Dataset) -> None:
    path = Path(dataset.store.path(f"annotations/grounder/{SHARD}.parquet"))
    path.write_bytes(path.read_bytes()[:-100])


def other_columns(dataset: Dataset) -> None:
    path = dataset.store.path(f"annotations/detector/{SHARD}.parquet")
    table = pq.read_table(path).drop_columns("quad").append_column("mood", pa.array(["glad"] * 8))
    pq.write_table(table, path)


def fewer_images(dataset: Dataset) -> None:
    path = Path(dataset.store.path("dataset.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": 4}))


def unfinished(dataset: Dataset) -> None:
    edit(dataset, "runs/r1", lambda rows: [row | {"units_failed": 1, "status": "incomplete"} for row in rows])


def copied_to_another_shard(dataset: Dataset) -> None:
    rows = pa.Table.from_pylist(said_of("a")["human"], ANNOTATIONS)
    dataset.write_annotations("human", "00001", rows, {"fingerprint": "human", "rows": rows.num_rows})


PLANTS: dict[str, Callable[[Dataset], None]] = {
    "orphan_parents": in_rows("scorer", "c", parent_id="nobody"),
    "orphan_members": in_rows("fused", "2", text="nobody"),
    "orphan_verdicts": in_verdicts(lambda rows: [*rows, rows[0] | {"annotation_id": "nobody"}]),
    "phrase_spans": in_rows("grounder", "q", span=[1, 4]),
    "boxes": in_rows("detector", "d", box=[40, 8, 8, 36]),
    "quads": in_rows("detector", "o", quad=[1, 1, 9, 1, 9, 5, 1, 50]),
    "masks": in_rows("grounder", "s", mask={"size": [64, 48], "counts": "0"}),
    "scores": in_rows("detector", "d", score=1.5),
    "elements": in_rows("elements", "x", text='{"objects": "dog"}'),
    "long_texts": in_rows("captioner", "t", text="dog " * 250_000),
    "unknown_kinds": in_rows("captioner", "t", kind="verse"),
    "unknown_images": in_rows("captioner", "u", image_id="nobody"),
    "duplicate_ids": twice(f"annotations/human/{SHARD}"),
    "duplicate_images": twice(f"images/{SHARD}"),
    "duplicate_verdicts": twice(f"verdicts/1/{SHARD}"),
    "images_without_verdict": in_verdicts(lambda rows: [row for row in rows if row["image_id"] != "b"]),
    "verdict_counts": in_verdicts(lambda rows: rows[1:]),
    "verdict_reasons": in_verdicts(lambda rows: [rows[0] | {"kept": False}, *rows[1:]]),
    "damaged_shards": damaged,
    "missing_shards": lambda dataset: dataset.store.delete(f"annotations/captioner/{SHARD}.parquet"),
    "stale_shards": in_verdicts(lambda rows: None, inputs="others"),
    "shard_columns": other_columns,
    "shard_counts": in_verdicts(lambda rows: None, rows=3),
    "dataset_counts": fewer_images,
    "image_files": lambda dataset: (Path(dataset.info.source) / "a.jpg").unlink(),
    "unfinished_runs": unfinished,
}  # fmt: skip


def test_an_id_in_two_shards_is_found_however_they_are_grouped(dataset, monkeypatch):
    copied_to_another_shard(dataset)
    assert results(dataset, "duplicate_ids")["duplicate_ids"].rows == 2
    # Each shard by itself, as where they are large.
    monkeypatch.setattr(session, "GROUP_ROWS", 1)
    assert results(dataset, "unknown_images")["unknown_images"].rows == 1


def test_a_sound_data_set_passes_every_check(dataset):
    found = results(dataset)
    assert list(found) == check_names()
    assert {name: (r.rows, r.error) for name, r in found.items() if not r.passed} == {}


def test_there_is_a_plant_for_every_check():
    assert set(PLANTS) == set(check_names())


@pytest.mark.parametrize("check", PLANTS)
def test_a_planted_fault_is_found(dataset, check):
    PLANTS[check](dataset)
    result = results(dataset, check)[check]
    assert not result.passed and result.error is None
    assert result.sample.num_rows == min(result.rows, 20)


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"box": [-1, 8, 40, 36]}, 1),
        ({"box": [8, 8, 64.5, 36]}, 1),
        ({"box": [8, 8, 40, float("nan")]}, 1),
        ({"box": [8, 8, 8, 36]}, 1),
        ({"box": [0, 0, 64, 48]}, 0),
    ],
)
def test_a_box_is_judged_to_a_hundredth_of_a_pixel(dataset, change, rows):
    in_rows("detector", "d", **change)(dataset)
    assert results(dataset, "boxes")["boxes"].rows == rows


def test_a_span_counts_characters_not_bytes_and_case_does_not_count(dataset):
    in_rows("grounder", "r", text="🐕 SCHLÄFT", span=[9, 18])(dataset)
    assert results(dataset, "phrase_spans")["phrase_spans"].passed


def test_a_span_beyond_its_text_is_found(dataset):
    in_rows("grounder", "r", span=[9, 999])(dataset)
    (row,) = results(dataset, "phrase_spans")["phrase_spans"].sample.to_pylist()
    assert row["spelt"] == "🐕 schläft."


def test_a_parent_of_another_image_is_no_parent(dataset):
    in_rows("scorer", "c", parent_id="bd")(dataset)
    assert results(dataset, "orphan_parents")["orphan_parents"].rows == 1


def test_a_recipe_that_would_say_something_else_makes_its_source_stale(dataset):
    opened = session.open_session(dataset, wanted={"captioner": "another", "detector": "detector"})
    found = {r.query.name: r for r in run_checks(opened)}["stale_shards"]
    opened.close()
    assert found.sample["file"].to_pylist() == [
        "annotations/captioner/00000.parquet",
        "annotations/captioner/00001.parquet",
    ]


def test_one_shard_by_other_settings_is_stale(dataset):
    edit(dataset, f"annotations/scorer/{SHARD}", lambda rows: None, fingerprint="older")
    # Of two no one is the odd one out; verdicts were given on other rows than there are now.
    assert results(dataset, "stale_shards")["stale_shards"].rows >= 1


def add_run(dataset: Dataset, number: int, stage: str, **more: object) -> None:
    (row,) = read_table(dataset.store, "runs/r1.parquet").to_pylist()
    started = row["started"] + timedelta(hours=number)
    dataset.write_run(
        f"r{number}", [row | {"run_id": f"r{number}", "stage": stage, "started": started} | more]
    )


@pytest.mark.parametrize(
    ("stage", "more", "later", "left"),
    [
        ("typo", {"units_done": 0}, None, True),
        ("typo", {"units_done": 0}, "annotate", False),
        ("typo", {"units_done": 0}, "filter", True),
        ("detector", {"units_done": 1}, "annotate", True),
        ("detector", {"units_done": 1, "units_skipped": 1}, None, False),
        ("detector", {"units_done": 1, "fingerprint": "detector"}, None, False),
        ("detector", {"units_done": 1, "fingerprint": "another"}, None, True),
        ("filter-1", {"units_done": 1, "command": "filter"}, "filter", True),
        ("filter-7", {"units_done": 1, "command": "filter"}, "filter", False),
    ],
)
def test_a_stage_is_unfinished_while_shards_of_it_are_left_and_somebody_wants_them(
    tmp_path, stage, more, later, left
):
    """Of two shards. A stage with files is wanted, and so is one that the last run of its command names."""
    dataset = hand_made(tmp_path)
    add_run(dataset, 2, stage, status="interrupted", **more)
    if later is not None:
        add_run(dataset, 3, "captioner", command=later, units_done=2)
    (found,) = [r for r in run_checks(open_session(dataset)) if r.query.name == "unfinished_runs"]
    assert found.error is None and found.passed == (not left)
