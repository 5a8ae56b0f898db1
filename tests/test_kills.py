"""Killed anywhere, a command that is run again ends as if nothing had happened: every crash point in turn."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_cluster import ROOT
from tests.picture_files import jpeg, png, put

RECIPE = """
name: points
specialists:
  looks: {use: "tests.fault_specialists:Looks", batch: 2}
  counts: {use: "tests.fault_specialists:Counts", batch: 2, needs: [looks]}
filters:
  red: {use: "filters.score:MinimumScore", args: {minimum: 0.5}, where: {kind: region}}
"""


def fde(*arguments: object) -> None:
    command = [sys.executable, "-m", "pipelines", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def points(folder: Path, tables: str, *command: object) -> list[dict]:
    """What came of each crash point of a command (tests/fault_points.py)."""
    run = [sys.executable, "-m", "tests.fault_points", str(folder), tables, *map(str, command)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def hold(found: list[dict], at_least: int) -> None:
    killed = [point for point in found if point["first"] == -9]
    assert len(killed) == len(found) - 1 >= at_least
    assert [point for point in found if point["second"] != 0] == []
    assert found[-1]["first"] == 0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six images of which the noting specialist refuses one or none, one broken file, one name twice."""
    files = {f"{i}.jpg": jpeg(i) for i in range(5)} | {
        "twin.jpg": jpeg(3),
        "broken.png": png(9, 99, 99)[:200],
    }
    odd = next(i for i in range(100, 400) if _id(jpeg(i)).startswith("0"))
    return put(tmp_path / "in", {**files, "odd.jpg": jpeg(odd)})


def _id(data: bytes) -> str:
    from data_engine.image import image_id_of

    return image_id_of(data)


@pytest.mark.slow
def test_ingest_killed_before_each_of_its_file_operations(tmp_path, source):
    fde("ingest", source, tmp_path / "calm", "--shard-size", 4)
    found = points(tmp_path, "images,annotations,failures", "ingest", source, "{}", "--shard-size", 4)
    hold(found, at_least=8)


def test_annotate_killed_before_each_of_its_file_operations(tmp_path, source):
    (tmp_path / "r.yaml").write_text(RECIPE)
    fde("ingest", source, tmp_path / "before", "--shard-size", 4)
    shutil.copytree(tmp_path / "before", tmp_path / "calm")
    inline = ("-r", tmp_path / "r.yaml", "--runner", "inline")
    fde("annotate", tmp_path / "calm", *inline)
    found = points(tmp_path, "images,annotations,failures", "annotate", "{}", *inline)
    hold(found, at_least=10)
    assert any(where.startswith("os.rename annotations/looks") for point in found for where in point["where"])


@pytest.mark.slow
def test_filter_killed_before_each_of_its_file_operations(tmp_path, source):
    (tmp_path / "r.yaml").write_text(RECIPE)
    fde("annotate", source, tmp_path / "before", "--shard-size", 4, "-r", tmp_path / "r.yaml")
    shutil.copytree(tmp_path / "before", tmp_path / "calm")
    fde("filter", tmp_path / "calm", "-r", tmp_path / "r.yaml")
    hold(
        points(tmp_path, "annotations,failures,verdicts", "filter", "{}", "-r", tmp_path / "r.yaml"),
        at_least=4,
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_nodes_and_the_driver_of_a_cluster_killed_at_random_points():
    benchmark = [sys.executable, str(Path("benchmarks") / "kills.py")]
    options = ["--images", "200", "--kills", "6", "--nodes", "2"]
    done = subprocess.run([*benchmark, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "row for row as the undisturbed run" in done.stdout
