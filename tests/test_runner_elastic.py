"""Nodes that come, go and fail under a run, and a head that is lost: real nodes, each of its own processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from tests.fault_cluster import ROOT, Cluster, wait_until
from tests.test_runner_inline import ask
from tests.toy_sources import write_pictures

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

SHARDS = 16
RECIPE = """
name: slow
specialists:
  process: {use: "tests.toy_specialists:Surroundings", args: {variable: USER, pause: PAUSE}, actors: 8}
"""


class Run:
    """`fde annotate` on a cluster, with a slow specialist that says on which node it ran."""

    def __init__(self, folder: Path, cluster: Cluster, pause: float) -> None:
        write_pictures(folder / "pictures", SHARDS * 2)
        ingest(str(folder / "pictures"), str(folder / "ds"), shard_size=2)
        (folder / "r.yaml").write_text(RECIPE.replace("PAUSE", str(pause)))
        self.dataset = Dataset.open(str(folder / "ds"))
        command = ["-m", "pipelines", "annotate", self.dataset.url, "-r", str(folder / "r.yaml")]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--address", cluster.address],
            cwd=ROOT,
            env=cluster.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, shards: int) -> None:
        assert wait_until(lambda: self.process.poll() is not None or self.shards >= shards, 300)

    @property
    def shards(self) -> int:
        return len(self.dataset.store.files("annotations/process"))

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=300)
        return self.process.returncode, said

    @property
    def nodes(self) -> int:
        return ask(self.dataset, "SELECT count(DISTINCT text) FROM texts")[0][0]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(1) as cluster:
        yield cluster


def test_a_node_that_joins_is_used(tmp_path, cluster):
    run = Run(tmp_path, cluster, pause=6)
    run.wait_for(1)
    assert cluster.add().up(90)
    assert run.end()[0] == 0
    assert run.shards == SHARDS and run.nodes == 2


@pytest.mark.parametrize("how", ["node", "raylet"])
def test_the_only_node_is_lost_and_another_joins(tmp_path, cluster, how):
    run = Run(tmp_path, cluster, pause=3)
    run.wait_for(3)
    cluster.lose(cluster.nodes[0], how)
    cluster.add()
    code, said = run.end()
    assert code == 0, said
    assert run.shards == SHARDS and "tried again" in said
    assert ask(run.dataset, "SELECT count(*), count(DISTINCT image_id) FROM texts") == [
        (SHARDS * 2, SHARDS * 2)
    ]


def test_a_lost_head_is_one_clear_line_and_finished_shards_are_kept(tmp_path, cluster):
    run = Run(tmp_path, cluster, pause=20)
    run.wait_for(2)
    cluster.stop()
    code, said = run.end()
    assert code == 4, said
    assert "fde: the head of the Ray cluster at " in said and "finished shards are kept" in said
    assert "Traceback" not in said and 2 <= run.shards < SHARDS
