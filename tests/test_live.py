"""Live files, what they refuse, and the record that each invocation leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipelines.annotate
from data_engine import live
from data_engine.blanked import blanked
from data_engine.dataset import Dataset, DatasetInfo
from data_engine.errors import DatasetError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.recipe import Recipe
from data_engine.runner.plan import Plan, Stage
from data_engine.runner.progress import Reporter
from data_engine.schema import RUNS
from data_engine.storage import Store
from pipelines.annotate import _begin_elsewhere, annotate
from pipelines.filter import filter_dataset
from tests.test_runner_inline import ask, part, recipe
from tests.toy_sources import write_pictures
from tests.toy_specialists import Numbers

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 12)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=4)
    return Dataset.open(str(tmp_path / "ds"))


def run(dataset: Dataset, chosen: Recipe):
    return annotate(dataset, chosen, runner="inline", reporter=Reporter(terminal=False))


def write_live(dataset: Dataset, run_id: str, age: float = 0.0, **told: object) -> Path:
    """A live file as another driver would have left it, `age` seconds ago."""
    stage = {
        "fingerprint": "other", "units": {"total": 3, "done": 1, "skipped": 0, "failed": 0, "running": ["00001"], "left": 2},
        "images": 4, "images_here": 4, "total_images": 12, "failures": 0, "annotations": 8, "images_per_s": 2.0,
        "eta_s": 4.0, "actors": 1, "actor_seconds": 3600.0, "cpus": 2.0, "gpus": 0.5, "redone": 0, "failed": {},
    }  # fmt: skip
    told = {
        "run_id": run_id, "command": "annotate", "recipe": "toy", "user": "somebody", "host": "elsewhere", "pid": 7,
        "place": "another machine", "started": "2026-01-01T00:00:00+00:00", "beat": "2026-01-01T00:00:09+00:00",
        "every": 10.0, "versions": {}, "stages": {"numbers": stage}, **told,
    }  # fmt: skip
    dataset.store.write_bytes(f"live/{run_id}.json", json.dumps(told).encode())
    path = Path(dataset.url) / "live" / f"{run_id}.json"
    if age:
        os.utime(path, (time.time() - age,) * 2)
    return path


def test_a_run_is_live_while_it_lasts_and_a_record_afterwards(dataset, monkeypatch):
    monkeypatch.setattr(live, "EVERY", 0.05)
    seen: list[live.Driver] = []
    looked = threading.Event()
    call = Numbers.__call__

    def once_looked(*args):
        assert looked.wait(240)
        return call(*args)

    monkeypatch.setattr(Numbers, "__call__", once_looked)
    slow = recipe(numbers=part("Numbers", pause=0.3))
    thread = threading.Thread(target=run, args=(dataset, slow))
    thread.start()
    while thread.is_alive():
        seen += live.drivers(dataset)
        if seen:
            looked.set()
        time.sleep(0.02)
    assert len({driver.run_id for driver in seen}) == 1
    assert seen[-1].stages["numbers"]["units"]["total"] == 3
    assert {driver.told["pid"] for driver in seen} == {os.getpid()}
    assert live.drivers(dataset) == []
    rows = ask(
        dataset, "SELECT run_id, status, units_done, exit_code, error, cpus, host IS NOT NULL FROM runs"
    )
    assert rows == [(seen[-1].run_id, "done", 3, 0, None, 1.0, True)]
    (versions,), (recipe_json,) = ask(dataset, "SELECT versions FROM runs") + ask(
        dataset, "SELECT recipe_json FROM runs"
    )
    assert json.loads(versions)["pyarrow"] == pa.__version__
    assert json.loads(recipe_json)["specialists"]["numbers"]["args"] == {"pause": 0.3}


def test_what_ends_a_run_stands_in_its_record(dataset):
    with pytest.raises(SpecialistError):
        run(dataset, recipe(fails=part("Fails", on=list(range(12)))))
    ((status, code, error),) = ask(dataset, "SELECT status, exit_code, error FROM runs")
    assert (status, code) == ("failed", 5) and "every image of shard 00000" in error
    assert live.drivers(dataset) == []


@pytest.mark.parametrize(
    "moment", ["data_engine.live.others", "data_engine.run_record.bury", "threading.Thread.start"]
)
def test_a_driver_asked_to_end_once_its_live_file_is_there_is_interrupted_not_lost(
    dataset, monkeypatch, moment
):
    begin = threading.Thread.start

    def asked(*args):
        if moment.endswith("start") and args[0].name != "live file":
            return begin(*args)
        assert [path.suffix for path in (Path(dataset.url) / "live").iterdir()] == [".json"]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(moment, asked)
        run(dataset, recipe(numbers=part("Numbers")))
    assert list((Path(dataset.url) / "live").iterdir()) == []
    assert ask(dataset, "SELECT status, exit_code FROM runs") == [("interrupted", 130)]


def test_a_filtering_leaves_a_record_too_and_a_dry_run_none(dataset):
    chosen = recipe(numbers=part("Numbers")).model_copy(
        update={"filters": Recipe.model_validate({"name": "f", "filters": {"low": {
            "use": "filters.score:MinimumScore", "args": {"minimum": 0.6}}}}).filters}
    )  # fmt: skip
    run(dataset, chosen)
    filter_dataset(dataset, chosen, sample=0.5, reporter=Reporter(terminal=False))
    filter_dataset(dataset, chosen, reporter=Reporter(terminal=False))
    assert ask(dataset, "SELECT command, stage, units_done FROM runs ORDER BY started") == [
        ("annotate", "numbers", 3),
        ("filter", "filter", 3),
    ]


def test_a_living_driver_with_another_recipe_is_not_worked_against(dataset):
    path = write_live(dataset, "20260101T000000-aaaa")
    with pytest.raises(
        DatasetError, match=r"somebody@elsewhere \(process 7\) runs numbers on this data set now"
    ) as error:
        run(dataset, recipe(numbers=part("Numbers")))
    assert "20260101T000000-aaaa" in error.value.message and "fde status" in error.value.hint
    assert dataset.sources() == [] and list(path.parent.iterdir()) == [path]
    run(dataset, recipe(other=part("Same")))  # another stage is in nobody's way
    assert dataset.sources() == ["other"]


def test_two_drivers_of_one_recipe_work_side_by_side(dataset, monkeypatch):
    chosen = recipe(numbers=part("Numbers", pause=0.05))
    errors: list[Exception] = []
    both = threading.Barrier(2, timeout=240)
    plan = pipelines.annotate.make_plan

    def plan_with_the_other(*args):
        made = plan(*args)
        both.wait()  # neither is done before the other knows what there is to do
        return made

    monkeypatch.setattr(pipelines.annotate, "make_plan", plan_with_the_other)

    def attempt() -> None:
        try:
            run(dataset, chosen)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert ask(dataset, "SELECT count(*), count(DISTINCT annotation_id) FROM annotations") == [(24, 24)]
    assert ask(dataset, "SELECT count(DISTINCT run_id), any_value(status) FROM runs") == [(2, "done")]


@given(shards=st.integers(1, 50), share=st.floats(0, 1), run_id=st.text(max_size=20))
def test_a_second_driver_begins_elsewhere_and_leaves_nothing_out(shards, share, run_id):
    info = DatasetInfo("0", "s", "folder", "0", shards, shards, 1, False, [], "0")
    dataset = Dataset(Store("/nowhere"), info)
    some = dataset.shards[: round(share * shards)]
    stages = {
        name: Stage(name, part("Numbers"), "", list(todo), 0, 0)
        for name, todo in {"a": dataset.shards, "b": some}.items()
    }
    _begin_elsewhere(Plan(stages), dataset, run_id)
    assert sorted(stages["a"].todo) == dataset.shards and sorted(stages["b"].todo) == some
    order = {shard: place for place, shard in enumerate(stages["a"].todo)}
    assert stages["b"].todo == sorted(
        some, key=order.__getitem__
    )  # what needs a shard comes in the same order


def test_a_driver_that_is_gone_becomes_a_record_and_stops_nobody(dataset):
    write_live(dataset, "20260101T000000-aaaa", age=60)
    run(dataset, recipe(numbers=part("Numbers")))
    assert live.drivers(dataset) == []
    rows = ask(
        dataset,
        "SELECT status, units_done, images, seconds, cpu_hours, gpu_hours FROM runs WHERE user = 'somebody'",
    )
    assert rows == [("lost", 1, 4, 9.0, 2.0, 0.5)]


def test_a_record_that_is_there_is_not_made_anew_of_a_live_file_that_stayed(dataset):
    run(dataset, recipe(numbers=part("Numbers")))
    ((mine,),) = ask(dataset, "SELECT run_id FROM runs")
    write_live(dataset, mine, age=60)
    run(dataset, recipe(same=part("Same")))
    assert ask(dataset, "SELECT stage, status FROM runs ORDER BY 1") == [
        ("numbers", "done"),
        ("same", "done"),
    ]
    assert live.drivers(dataset) == []


def test_a_process_of_this_machine_that_ended_is_gone_at_once(dataset):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_live(dataset, "r1", pid=ended.pid, place=live.place())
    write_live(dataset, "r2", pid=os.getpid(), place=live.place())
    assert {driver.run_id: driver.gone for driver in live.drivers(dataset)} == {"r1": True, "r2": False}


def test_ages_are_told_against_the_own_file_where_there_is_one(dataset):
    """A machine whose clock is an hour ahead would else take every other driver for gone."""
    now = time.time()
    for run_id, age in {"r1": 3600, "mine": 3601}.items():
        os.utime(write_live(dataset, run_id), (now - age,) * 2)
    (driver,) = live.drivers(dataset, "mine")
    assert (driver.run_id, driver.gone, driver.age) == ("r1", False, 0.0)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[1]", b"{", b'{"stages": 3}', b"[" * 100_000, b'{"stages": {"numbers": 1}}',
        b'{"started": "2026-01-01T00:00:00+00:00", "seconds": 1, "versions": {}, "stages": []}',
        b'{"started": "2026-01-01T00:00:00+00:00", "seconds": "x", "versions": {}, "stages": {"numbers": []}}',
    ],
)  # fmt: skip
def test_a_live_file_that_is_none_harms_nobody(dataset, content):
    dataset.store.write_bytes("live/r1.json", content)
    path = Path(dataset.url) / "live/r1.json"
    os.utime(path, (time.time() - 3600,) * 2)
    run(dataset, recipe(numbers=part("Numbers")))
    assert ask(dataset, "SELECT status FROM runs") == [("done",)]


def test_records_of_an_older_version_are_read_beside_new_ones(dataset):
    old = pa.schema(list(RUNS)[:14])
    values = {
        "run_id": "old",
        "command": "annotate",
        "stage": "s",
        "status": "done",
        "started": 0,
        "version": "0.1",
    }
    row = {field.name: values.get(field.name, 0 if field.name != "recipe" else "r") for field in old}
    folder = Path(dataset.url) / "runs"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([row], schema=old), folder / "19700101T000000-0.parquet")
    assert ask(dataset, "SELECT run_id, user FROM runs") == [("old", None)]
    run(dataset, recipe(numbers=part("Numbers")))
    assert ask(dataset, "SELECT count(*), count(user) FROM runs") == [(2, 1)]


def test_secrets_are_blanked(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "canary-4711-canary")
    text = (
        "fde annotate s3://AKIA:hush@bucket/x?access_key=hush&region=eu https://me:hush@host/a?token=hush "
        '--token hush {"api_key": "hush", "api_key_env": "SOME_API_KEY", "max_tokens": 5} canary-4711-canary'
    )
    found = blanked(text)
    assert "hush" not in found and "canary" not in found
    for kept in (
        "s3://***@bucket/x",
        "&region=eu",
        "https://***@host/a",
        '"api_key_env": "SOME_API_KEY"',
        "5}",
    ):
        assert kept in found


def test_an_ingest_by_the_command_line_leaves_a_record(tmp_path):
    write_pictures(tmp_path / "pictures", 4)
    command = [sys.executable, "-m", "pipelines", "ingest", str(tmp_path / "pictures"), str(tmp_path / "ds")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = ask(
        Dataset.open(str(tmp_path / "ds")),
        "SELECT command, stage, status, units_done, images, recipe FROM runs",
    )
    assert rows == [("ingest", "ingest", "done", 1, 4, None)]
