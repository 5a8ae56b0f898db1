"""Jobs: what is sent, what is refused, and a real cluster that runs one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import ClusterError, RecipeError
from data_engine.ingest.run import ingest
from pipelines.job_package import package, packaged, paths_of_this_machine
from pipelines.jobs import Job, connect, exit_code, submit
from tests.test_runner_inline import ask
from tests.toy_sources import write_pictures

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef" * 4
PATIENT = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "200",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
}
"""On a busy machine, what makes up a head node takes minutes to start."""

RECIPE = """
name: mine
specialists:
  looks: {use: "looker:Looks", args: {words: ./words, elsewhere: PLACE}}
"""
LOOKER = """
import os
from data_engine.annotation import Annotation
from spoken.words import read

class Looks:
    def __init__(self, words, elsewhere=None):
        self.word = read(words)
    def __call__(self, images, said):
        return [[Annotation("text", self.word, "brief")] for _ in images]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A recipe whose module imports a package, beside files that nothing refers to."""
    folder = tmp_path / "mine"
    (folder / "spoken" / "__pycache__").mkdir(parents=True)
    (folder / "words").mkdir()
    (folder / "spoken" / "__pycache__" / "x.pyc").write_bytes(b"0")
    (folder / "spoken" / "__init__.py").touch()
    (folder / "spoken" / "words.py").write_text(
        "from pathlib import Path\ndef read(f): return (Path(f) / 'w.txt').read_text()\n"
    )
    (folder / "words" / "w.txt").write_text("a word")
    (folder / "looker.py").write_text(LOOKER)
    (folder / "unused.py").write_text("raise SystemExit")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "large.bin").write_bytes(bytes(1000))
    (folder / "my.yaml").write_text(RECIPE.replace("PLACE", str(folder / "pictures")))
    return folder / "my.yaml"


def test_the_recipe_travels_with_the_code_and_the_files_that_it_refers_to_and_nothing_else(mine, tmp_path):
    assert package(mine, tmp_path / "sent") == ["looker.py", "my.yaml", "spoken", "words"]
    sent = sorted(
        str(p.relative_to(tmp_path / "sent")) for p in (tmp_path / "sent").rglob("*") if p.is_file()
    )
    assert sent == ["looker.py", "my.yaml", "spoken/__init__.py", "spoken/words.py", "words/w.txt"]
    assert paths_of_this_machine(mine) == [str(mine.parent / "pictures")]


def test_arguments_name_the_recipe_as_it_is_called_there(mine, tmp_path):
    notes: list[str] = []
    for written, there in [
        (["-r", str(mine)], ["-r", "my.yaml"]),
        (["--recipe", str(mine)], ["--recipe", "my.yaml"]),
        ([f"--recipe={mine}"], ["--recipe=my.yaml"]),
        (["--recipe", "scenes"], ["--recipe", "scenes"]),
    ]:
        assert packaged(["annotate", "ds", *written], None, tmp_path / "sent", notes.append) == [
            "annotate",
            "ds",
            *there,
        ]
    inside = packaged(["filter", "ds", "-r", str(mine)], tmp_path, tmp_path, notes.append)
    assert inside == ["filter", "ds", "-r", "mine/my.yaml"]
    assert "sending looker.py, my.yaml, spoken, words" in notes
    assert any("every node must have it at that place" in line for line in notes)


def test_what_cannot_be_sent_is_one_clear_line(mine, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="there is no recipe 'nowhere.yaml'"):
        packaged(["annotate", "ds", "-r", "nowhere.yaml"], None, tmp_path / "sent", print)
    with pytest.raises(RecipeError, match="does not lie in"):
        packaged(["annotate", "ds", "-r", str(mine)], mine.parent / "words", tmp_path / "sent", print)
    for text, said in ((b"name: caf\xe9\n", "is not UTF-8"), (b"name: [\n", "is not valid YAML")):
        (tmp_path / "odd.yaml").write_bytes(text)
        for folder in (None, tmp_path):
            with pytest.raises(RecipeError, match=said):
                packaged(
                    ["annotate", "ds", "-r", str(tmp_path / "odd.yaml")], folder, tmp_path / "sent", print
                )
    monkeypatch.setattr("pipelines.job_package.LARGEST", 10)
    with pytest.raises(RecipeError, match="name large weights by a URL|a job can send"):
        package(mine, tmp_path / "sent")
    mine.write_text(mine.read_text().replace("./words", "../words"))
    with pytest.raises(RecipeError, match="outside of the recipe's folder"):
        package(mine, tmp_path / "sent")


@pytest.mark.parametrize("arguments", [[], ["view", "ds"], ["submit", "x"], ["rm", "-rf"]])
def test_only_commands_that_end_can_be_jobs(arguments):
    with pytest.raises(RecipeError, match="cannot be a job"):
        submit(None, arguments)


def test_a_runtime_environment_is_a_mapping_that_leaves_the_folder_to_us(tmp_path):
    for text in ("[1]", "{working_dir: x}", "{", ""):
        (tmp_path / "env.yaml").write_text(text)
        with pytest.raises(RecipeError, match="runtime environment"):
            submit(None, ["qa", "ds"], runtime_env=tmp_path / "env.yaml")
    with pytest.raises(RecipeError, match="cannot read the runtime environment"):
        submit(None, ["qa", "ds"], runtime_env=tmp_path / "none.yaml")


def test_an_address_where_nobody_listens_is_one_clear_error(monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    for address in ("http://127.0.0.1:9", "127.0.0.1:9", "http://:"):
        with pytest.raises(ClusterError, match="the job server at http://") as error:
            connect(address)
        assert TOKEN not in str(error.value)
        assert "http://HEAD:8265" in error.value.hint


def test_a_job_ends_with_its_commands_own_exit_code():
    def ended(status: str, code: int | None) -> Job:
        return Job("j", status, "annotate", None, None, code, "no room")

    assert exit_code(ended("SUCCEEDED", 0)) == 0
    assert exit_code(ended("FAILED", 6)) == 6
    assert exit_code(ended("STOPPED", None)) == 130
    with pytest.raises(ClusterError, match="did not run: no room"):
        exit_code(ended("FAILED", None))


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A head node of its own with a job server; other clusters of this machine are left alone."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    # Sockets' paths may have 107 characters at most, so no folder of pytest's.
    folder = tempfile.mkdtemp(prefix="fde", dir="/tmp")
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={ports[0]}", f"--temp-dir={folder}",
        "--num-cpus=2", "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports[1]}",
        "--dashboard-agent-listen-port=0", "--disable-usage-stats", "--block",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        **PATIENT,
        "RAY_AUTH_TOKEN": TOKEN,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    head = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{ports[1]}"
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    for _ in range(240):
        try:
            with urllib.request.urlopen(request, timeout=5):
                break
        except OSError:
            time.sleep(0.5)
    yield address
    head.terminate()
    head.wait(timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def fde(address: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")}
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=ROOT,
        env={**environment, "RAY_AUTH_TOKEN": TOKEN, "RAY_API_SERVER_ADDRESS": address, **more},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.ray
def test_a_job_on_a_real_cluster(cluster, mine, tmp_path):
    """Sent, followed, listed; its own exit code comes back, of success and of failure; it can be stopped."""
    write_pictures(tmp_path / "pictures", 8)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=4)
    command = ("annotate", str(tmp_path / "ds"), "-r", str(mine))
    done = fde(cluster, "submit", "--", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(ray)" in done.stdout and "exit code 0" in done.stderr and TOKEN not in done.stdout + done.stderr
    dataset = Dataset.open(str(tmp_path / "ds"))
    assert ask(dataset, "SELECT text, count(*) FROM texts GROUP BY ALL") == [("a word", 8)]
    assert ask(dataset, "SELECT runner, status FROM runs") == [("ray", "done")]

    refused = fde(cluster, "submit", "--", "annotate", str(tmp_path / "none"), "-r", str(mine))
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "is not a data set" in refused.stdout

    mine.with_name("looker.py").write_text(
        LOOKER.replace("return [[", "__import__('time').sleep(600); return [[")
    )
    (tmp_path / "pictures2").mkdir()
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds2"), shard_size=4)
    sent = fde(cluster, "submit", "--no-wait", "--", "annotate", str(tmp_path / "ds2"), "-r", str(mine))
    job = sent.stdout.split()[1].rstrip(";")
    while not Dataset.open(str(tmp_path / "ds2")).store.files("live", ".json"):
        time.sleep(0.5)
    follower = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "jobs", "logs", "-f", job, "--address", cluster], cwd=ROOT,
        env={**os.environ, "RAY_AUTH_TOKEN": TOKEN}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert follower.stdout is not None
    assert follower.stdout.readline()  # it follows by now
    follower.send_signal(signal.SIGINT)
    assert f"the job goes on; follow it: fde jobs logs -f {job}" in follower.communicate()[1]
    assert follower.returncode == 130
    assert f"{job}  running" in fde(cluster, "jobs", "list").stdout
    assert "is being stopped" in fde(cluster, "jobs", "stop", job).stdout
    assert fde(cluster, "jobs", "logs", "-f", job).returncode == 130
    listed = fde(cluster, "jobs", "list").stdout
    assert (
        f"{job}  stopped" in listed
        and "succeeded (exit code 0)" in listed
        and "failed (exit code 3)" in listed
    )
    none = fde(cluster, "jobs", "logs", "nothing")
    assert none.returncode == 4 and len(none.stderr.splitlines()) == 2
    wrong = fde(cluster, "jobs", "list", RAY_AUTH_TOKEN="f" * 64)
    assert wrong.returncode == 4 and "f" * 64 not in wrong.stderr
