"""Log lines as JSON: one object per line, whatever ends the command, and no secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.logs import JsonLine, about
from tests.test_runner_inline import ask
from tests.toy_sources import write_pictures

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
name: toy
specialists:
  fails: {use: "tests.toy_specialists:Fails", args: {"on": [0, 1, 2, 3]}}
"""
SLOW = """
name: slow
specialists:
  numbers: {use: "tests.toy_specialists:Numbers", args: {pause: 30}}
"""


NOISE = """
import logging, warnings
from data_engine.logs import set_up
set_up()
for name in ("huggingface_hub", "transformers", "spacy"):
    log = logging.getLogger(name)
    log.addHandler(logging.StreamHandler())  # as these packages do when they are imported
    log.propagate = name == "huggingface_hub"
    logging.getLogger(f"{name}.part").warning("from %s", name)
warnings.warn("from Python")
"""


@pytest.mark.parametrize("kind", ["json", ""])
def test_other_packages_lines_come_once_and_as_ours_do(kind):
    environment = {**os.environ, "FDE_LOG": kind}
    done = subprocess.run(
        [sys.executable, "-c", NOISE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    wanted = ["from huggingface_hub", "from transformers", "from spacy"]
    if kind == "json":
        told = [json.loads(line) for line in lines]
        assert [one["message"] for one in told[:3]] == wanted and "from Python" in told[3]["message"]
        assert len(told) == 4 and {one["level"] for one in told} == {"warning"}
    else:
        assert [line.split(" ", 1)[1] for line in lines[:3]] == wanted and "from Python" in lines[3]


def test_a_package_that_brings_its_own_handler_keeps_none():
    pytest.importorskip("huggingface_hub")
    code = (
        "import logging; from data_engine.logs import set_up; set_up(); import huggingface_hub.utils.logging\n"
        "logging.getLogger('huggingface_hub.x').warning('here')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("here") == len(done.stderr.splitlines()) == 1


@given(st.text(), st.text())
def test_any_message_is_one_line_of_json(message, shard):
    import logging

    record = logging.LogRecord("data_engine", logging.INFO, "", 0, "%s", (message,), None)
    record.__dict__.update(about(shard=shard, stage="s"))
    line = JsonLine().format(record)
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert told["stage"] == "s" and told.get("shard", "") == shard and told["level"] == "info"


def start(tmp_path: Path, text: str) -> subprocess.Popen[str]:
    write_pictures(tmp_path / "pictures", 4)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=4)
    (tmp_path / "r.yaml").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "annotate",
        str(tmp_path / "ds"),
        "-r",
        str(tmp_path / "r.yaml"),
    ]
    environment = {**os.environ, "FDE_LOG": "json", "SOME_TOKEN": "canary-canary"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_error_is_an_object_with_its_hint_and_exit_code(tmp_path):
    _, said = (done := start(tmp_path, RECIPE.replace("on", "canary-canary"))).communicate()
    assert done.returncode == 2
    told = [json.loads(line) for line in said.splitlines()]
    assert told[-1]["level"] == "error" and told[-1]["exit_code"] == 2 and told[-1]["hint"]
    assert "canary" not in said


def test_a_driver_that_is_asked_to_end_leaves_a_record_and_says_so(tmp_path):
    """As Slurm, Kubernetes and `fde jobs stop` ask: the live file goes, the run is interrupted, not lost."""
    driver = start(tmp_path, SLOW)
    dataset = Dataset.open(str(tmp_path / "ds"))
    while not dataset.store.files("live", ".json") and driver.poll() is None:
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate()
    assert driver.returncode == 130, said
    assert json.loads(said.splitlines()[-1])["message"] == "interrupted"
    assert dataset.store.files("live", ".json") == []
    assert ask(dataset, "SELECT status, exit_code FROM runs") == [("interrupted", 130)]
