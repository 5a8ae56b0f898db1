"""Killed at any point and run again, a data set ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import load_recipe
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from tests.toy_sources import write_pictures

RECIPE = """
name: slow
specialists:
  numbers: {use: "tests.toy_specialists:Numbers", args: {pause: 0.05}, batch: 5}
  echo: {use: "tests.toy_specialists:Echo", needs: [numbers], batch: 5}
"""
SHARDS = 12


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, Path]:
    """An ingested data set of 12 shards, and a recipe slow enough to be caught in the middle."""
    write_pictures(tmp_path / "pictures", SHARDS * 5)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=5)
    (tmp_path / "slow.yaml").write_text(RECIPE)
    return tmp_path / "ds", tmp_path / "slow.yaml"


def start(dataset: Path, recipe: Path, runner: str, pause: str = "0:0") -> subprocess.Popen[bytes]:
    """`pause`: tests.toy_specialists.Numbers tells."""
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "annotate",
        str(dataset),
        "--recipe",
        str(recipe),
        "--runner",
        runner,
    ]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "FDE_TEST_PAUSE": pause}
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=root, env=environment
    )


def shards(dataset: Path) -> dict[str, int]:
    """Every finished shard, with the moment it was put in place."""
    return {
        str(p.relative_to(dataset)): p.stat().st_mtime_ns
        for p in (dataset / "annotations").rglob("*.parquet")
    }


def wait_for_shards(dataset: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while len(shards(dataset)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def family(process: subprocess.Popen[bytes]) -> list[tuple[str, psutil.Process]]:
    """The processes below one, by their names; none once it has ended."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                found.append((child.name(), child))
    return found


def undisturbed(dataset: Path, recipe: Path, tmp_path: Path):
    ingest(str(tmp_path / "pictures"), str(tmp_path / "other"), shard_size=5)
    other = Dataset.open(str(tmp_path / "other"))
    annotate(other, load_recipe(recipe), runner="inline", reporter=Reporter(terminal=False))
    return sql(other, "FROM annotations ORDER BY annotation_id")


def finish_and_compare(dataset: Path, recipe: Path, tmp_path: Path) -> None:
    before = shards(dataset)
    opened = Dataset.open(str(dataset))
    summary = annotate(opened, load_recipe(recipe), runner="inline", reporter=Reporter(terminal=False))
    after = shards(dataset)
    assert {name: after[name] for name in before} == before, "a finished shard was written again"
    assert sum(stage.units_skipped for stage in summary.stages) == len(before)
    assert sum(stage.units_done for stage in summary.stages) == 2 * SHARDS - len(before)
    assert sql(opened, "FROM annotations ORDER BY annotation_id") == undisturbed(dataset, recipe, tmp_path)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_process_stopped_at_random_points(job, tmp_path, how):
    dataset, recipe = job
    chance = random.Random(int(how))
    for _ in range(3):
        # Three shards at full speed, to be killed anywhere in them; if this process comes late, in the next.
        process = start(dataset, recipe, "inline", pause="60:3")
        wait_for_shards(dataset, len(shards(dataset)) + chance.randint(1, 3), process)
        time.sleep(chance.random() * 0.1)
        process.send_signal(how)
        _, said = process.communicate(timeout=240)
        assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), said.decode()
        if how == signal.SIGINT:
            assert b"fde: interrupted" in said and b"Traceback" not in said
    assert 3 <= len(shards(dataset)) < 2 * SHARDS
    finish_and_compare(dataset, recipe, tmp_path)


def test_ctrl_c_while_a_dataclass_is_made_ends_with_the_exit_code_too(job, tmp_path, monkeypatch):
    dataset, recipe = job
    # The standard library makes a dataclass by an exec of a text, which CPython treats in a way of its own.
    (tmp_path / "struck.py").write_text('exec("raise KeyboardInterrupt")\nclass Specialist: pass\n')
    recipe.write_text("name: struck\nspecialists:\n  s: {use: 'struck:Specialist'}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    process = start(dataset, recipe, "inline")
    _, said = process.communicate()
    assert process.returncode == 130 and b"fde: interrupted" in said


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_driver_of_a_cluster_stopped_in_the_middle(job, tmp_path, how):
    dataset, recipe = job
    process = start(dataset, recipe, "ray", pause="60:6")
    wait_for_shards(dataset, 5, process)
    assert process.poll() is None, process.communicate()[1].decode()
    # Ray's own agents end themselves a little later; what holds memory, files or models must go at once.
    named = [(name, child) for name, child in family(process) if "Agent" not in name]
    assert any("ray::UnitActor" in name for name, _ in named) and any("raylet" in name for name, _ in named)
    process.send_signal(how)
    _, said = process.communicate(timeout=240)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL), said.decode()
    _, alive = psutil.wait_procs([child for _, child in named], timeout=120)
    assert not alive, "the cluster of a dead driver lives on"
    assert 5 <= len(shards(dataset)) < 2 * SHARDS
    finish_and_compare(dataset, recipe, tmp_path)


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_actors_killed_while_the_run_goes_on(job, tmp_path):
    dataset, recipe = job
    process = start(dataset, recipe, "ray", pause="0.5:0")
    killed = 0
    for wanted in (3, 8, 14):
        wait_for_shards(dataset, wanted, process)
        for name, child in family(process):
            if "ray::UnitActor" in name:
                child.kill()
                killed += 1
                break
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said.decode()
    assert killed >= 2
    assert len(shards(dataset)) == 2 * SHARDS
    finish_and_compare(dataset, recipe, tmp_path)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_eight_actors_killed_at_random_moments(job, tmp_path, seed):
    dataset, recipe = job
    recipe.write_text(RECIPE.replace("pause: 0.05", "pause: 0.4"))
    chance = random.Random(seed)
    process = start(dataset, recipe, "ray")
    wait_for_shards(dataset, 1, process)
    killed = 0
    while killed < 8 and process.poll() is None:
        time.sleep(chance.random() * 4)
        workers = [child for name, child in family(process) if "ray::UnitActor" in name]
        if workers:
            chance.choice(workers).kill()
            killed += 1
    _, said = process.communicate(timeout=240)
    assert process.returncode in (0, 6), said.decode()
    finish_and_compare(dataset, recipe, tmp_path)
