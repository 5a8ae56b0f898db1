"""A cluster that was there before: `--address` and `RAY_ADDRESS`, with fractions of a (pretended) GPU."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from tests.test_runner_inline import ask
from tests.toy_sources import write_pictures

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
name: shared
specialists:
  numbers: {use: "tests.toy_specialists:Numbers", gpus: 0.5, cpus: 0.5, actors: 2, args: {pause: 0.02}}
  echo: {use: "tests.toy_specialists:Echo", needs: [numbers], cpus: 0.5}
"""


TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def address():
    """The address of a head node of its own; other clusters of this machine are left alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = str(Path(sys.executable).with_name("ray"))
    # Sockets' paths may have 107 characters at most, so no folder of pytest's; and in Ray's own default
    # folder it would stay behind as the machine's current cluster.
    folder = tempfile.mkdtemp(prefix="fde", dir="/tmp")
    options = [
        "--num-cpus=2",
        "--num-gpus=1",
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--block",
    ]
    head = subprocess.Popen(
        [ray, "start", "--head", f"--port={port}", f"--temp-dir={folder}", *options],
        cwd=ROOT,
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert head.stdout is not None
    assert any("Ray runtime started" in line for line in head.stdout)
    yield f"127.0.0.1:{port}"
    head.terminate()
    head.stdout.read()
    head.stdout.close()
    head.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_run_uses_the_cluster_and_leaves_it_running(tmp_path, address, how):
    write_pictures(tmp_path / "pictures", 24)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=6)
    (tmp_path / "r.yaml").write_text(RECIPE)
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "annotate",
        str(tmp_path / "ds"),
        "-r",
        str(tmp_path / "r.yaml"),
    ]
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_MODE")}
    environment["RAY_AUTH_TOKEN"] = TOKEN
    if how == "option":
        command += ["--address", address]
    else:
        environment["RAY_ADDRESS"] = address
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(ray)" in done.stdout
    dataset = Dataset.open(str(tmp_path / "ds"))
    assert ask(dataset, "SELECT source, count(*) FROM texts GROUP BY 1 ORDER BY 1") == [
        ("echo", 24),
        ("numbers", 24),
    ]


def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path):
    write_pictures(tmp_path / "pictures", 2)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    (tmp_path / "r.yaml").write_text(RECIPE)
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "annotate",
        str(tmp_path / "ds"),
        "-r",
        str(tmp_path / "r.yaml"),
    ]
    done = subprocess.run([*command, "--address", "127.0.0.1:9"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 4 and done.stderr.startswith(
        "fde: cannot reach the Ray cluster at 127.0.0.1:9: "
    )
    assert len(done.stderr.splitlines()) == 2
