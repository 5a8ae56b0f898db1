"""Students trained by several processes, and by ones that are killed: real Ray, real gloo, real kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tensorboardX")

from data_engine.dataset import Dataset
from data_engine.errors import ClusterError, FdeError
from specialists.florence2 import Florence2
from specialists.florence2.training.state import Working
from tests.scenes_dataset import scenes_dataset
from tests.test_student_training import TRUTH, curve, held_out, same_weights, student

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Ray Train imports Ray Data, which sets settings of its own that it retires.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
]

STEPS = 10


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return scenes_dataset(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def alone(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by one process."""
    output = tmp_path_factory.mktemp("students") / "alone"
    student(steps=STEPS).train(dataset, TRUTH, output, None, lambda _: None)
    return output


@pytest.mark.ray
def test_two_workers_of_ray_train_learn_as_one_process_does(
    dataset: Dataset, tmp_path: Path, alone: Path
) -> None:
    said: list[str] = []
    student(steps=STEPS, workers=2, runner="ray").train(dataset, TRUTH, tmp_path / "two", None, said.append)
    one, two = curve(alone), curve(tmp_path / "two")
    print(
        "largest relative difference of losses",
        max(abs(a - b) / a for (_, a), (_, b) in zip(one, two, strict=True)),
    )
    assert [step for step, _ in two] == list(range(STEPS))
    assert np.allclose([loss for _, loss in one], [loss for _, loss in two], rtol=1e-4)
    assert any("loss of held-out images" in line for line in said)
    assert [p.name for p in tmp_path.iterdir()] == ["two"]
    Florence2(str(tmp_path / "two"), tasks=["OD"], num_beams=1)


@pytest.mark.ray
def test_what_a_worker_raises_comes_out_and_a_cluster_may_be_too_small(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(FdeError, match="is not a number, on the images") as caught:
        student(workers=2, runner="ray", rate=1e38, warm_up=0.5, locating=False, evaluations=0).train(
            dataset, TRUTH, tmp_path / "s", None, lambda _: None
        )
    assert caught.value.hint
    with pytest.raises(ClusterError, match="the cluster has"):
        student(batch=4096, workers=4096, runner="ray").train(
            dataset, TRUTH, tmp_path / "t", None, lambda _: None
        )


@pytest.mark.ray
def test_a_worker_of_ray_train_that_dies_costs_no_more_than_its_last_steps(
    dataset: Dataset, tmp_path: Path
) -> None:
    killed: list[int] = []
    output = tmp_path / "s"
    log = Working.of(output).student / "log.jsonl"

    def kill() -> None:
        while not _reached(log, 3):
            time.sleep(0.05)
        for child in psutil.Process().children(recursive=True):
            if any("RayTrainWorker" in part for part in child.cmdline()[:1]) and not killed:
                killed.append(child.pid)
                child.kill()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    said: list[str] = []
    # As many steps as a slow machine needs for the killer to come in between.
    student(steps=60, runner="ray", save_steps=1, readers=1, evaluations=0).train(
        dataset, TRUTH, output, None, said.append
    )
    assert killed and any("a worker died" in line and "going on from step" in line for line in said)
    assert [step for step, _ in curve(output)] == list(range(60))


def test_two_processes_of_this_machine_learn_as_one_does(
    dataset: Dataset, tmp_path: Path, alone: Path
) -> None:
    student(steps=STEPS, workers=2).train(dataset, TRUTH, tmp_path / "two", None, lambda _: None)
    assert np.allclose(
        [loss for _, loss in curve(alone)], [loss for _, loss in curve(tmp_path / "two")], rtol=1e-4
    )


_SCRIPT = """
import sys
from pathlib import Path
from data_engine.dataset import Dataset
from tests.test_student_training import TRUTH, student
if __name__ == "__main__":
    student(steps=int(sys.argv[3]), save_steps=1, readers=1).train(
        Dataset.open(sys.argv[1]), TRUTH, Path(sys.argv[2]), None, print)
"""


def _begin(dataset: Dataset, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _SCRIPT, dataset.url, str(output), str(STEPS)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], start_new_session=True)


def test_a_training_that_is_killed_anywhere_goes_on_to_the_same_curve(
    dataset: Dataset, tmp_path: Path, alone: Path
) -> None:
    output = tmp_path / "killed"
    log = Working.of(output).student / "log.jsonl"
    deaths = 0
    for at in (1, 4, 7):
        process = _begin(dataset, output)
        while process.poll() is None and not _reached(log, at):
            time.sleep(0.02)
        readers: list[psutil.Process] = []
        if process.poll() is None:
            readers = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)  # the process alone: its readers must end by themselves
            deaths += 1
        process.wait()
        assert not psutil.wait_procs(readers, timeout=60)[1]
    assert deaths and not output.exists()
    assert _begin(dataset, output).wait() == 0
    assert curve(output) == curve(alone)
    assert held_out(output) == held_out(alone)
    assert same_weights(output, alone)


def _reached(log: Path, step: int) -> bool:
    if not log.is_file():
        return False
    steps: list[dict[str, Any]] = [
        json.loads(line) for line in log.read_text().splitlines(True) if line.endswith("\n")
    ]
    return any(line["step"] >= step for line in steps)
