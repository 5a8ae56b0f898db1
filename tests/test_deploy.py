"""What lies under deploy/: as far as it can be held against the code, the lock file and the formats, offline."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_engine.runner.metrics import COUNTERS, GAUGES, TAGS, UNIT_SECONDS

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
LOCK = (ROOT / "requirements.lock").read_text()


def locked(package: str) -> str:
    found = re.search(rf"^{package}==([\w.]+)", LOCK, re.MULTILINE)
    assert found is not None
    return found[1]


# The fields that KubeRay's own types have (ray-operator/apis/ray/v1), as far as the manifest may use them.
JOB = {
    "entrypoint", "submissionMode", "backoffLimit", "submitterConfig", "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished", "rayClusterSpec", "activeDeadlineSeconds", "runtimeEnvYAML", "metadata",
}  # fmt: skip
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def manifest() -> tuple[dict[str, Any], dict[str, Any]]:
    recipe, job = yaml.safe_load_all((DEPLOY / "kuberay-rayjob.yaml").read_text())
    return recipe, job


def test_the_rayjob_has_the_fields_that_kuberay_knows():
    _, job = manifest()
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= JOB and spec["shutdownAfterJobFinishes"] and spec["submissionMode"] == "K8sJobMode"
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= CLUSTER and cluster["enableInTreeAutoscaling"]
    assert set(cluster["headGroupSpec"]) <= {"rayStartParams", "template"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert set(group) <= GROUP
        # KubeRay hands them to `ray start`, and takes texts only.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
        assert container["resources"]["limits"] == container["resources"]["requests"]
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    assert names == ["gpu", "cpu"] and all(
        g["minReplicas"] <= g["maxReplicas"] for g in cluster["workerGroupSpecs"]
    )
    gpus = ["nvidia.com/gpu" in g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in groups]
    assert gpus == [False, True, False]


def test_the_rayjob_runs_the_ray_of_the_lock_file_and_a_command_that_there_is():
    from pipelines.jobs import COMMANDS

    recipe, job = manifest()
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked("ray")
    python, flag, module, command, *rest = shlex.split(job["spec"]["entrypoint"])
    assert (python, flag, module) == ("python", "-m", "pipelines") and command in COMMANDS
    assert Path(rest[rest.index("--recipe") + 1]).name in recipe["data"]


def test_the_recipe_of_the_rayjob_is_sound():
    from data_engine.recipe import read_recipe

    recipe, _ = manifest()
    assert read_recipe(recipe["data"]["my.yaml"], "my.yaml").specialists


def test_the_container_takes_the_lock_files_packages_and_runs_as_nobody_special():
    text = (DEPLOY / "Containerfile").read_text()
    assert "--require-hashes -r requirements.lock" in text
    assert re.search(r"^USER 1000$", text, re.MULTILINE) and "ARG DEVICE" in text
    assert (
        re.search(r"UV_VERSION=(\S+)", text)[1]
        == re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())[1]
    )
    copied = set(re.findall(r"^COPY (\w+) /build", text, re.MULTILINE))
    assert {"data_engine", "specialists", "filters", "pipelines"} <= copied


def test_the_cpu_image_leaves_out_what_needs_a_gpu_and_nothing_else(tmp_path):
    program = re.search(r"awk '([^']+)'", (DEPLOY / "Containerfile").read_text())[1]
    kept = subprocess.run(["awk", program], input=LOCK, capture_output=True, text=True, check=True).stdout
    names = [set(re.findall(r"^([a-z0-9][\w.-]*)==", text, re.MULTILINE)) for text in (LOCK, kept)]
    left_out = names[0] - names[1]
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-toolkit"} <= left_out
    assert all(
        name.startswith(("nvidia-", "cuda-")) or name in ("torch", "torchvision", "triton")
        for name in left_out
    )
    hashes = re.findall(r"^    --hash", kept, re.MULTILINE)
    assert len(hashes) > len(names[1])


STUBS = {
    "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\nnode3\\n"; echo "scontrol $*" >> "$TOLD"',
    # What srun would run on a node, it runs here; options end with the first word that is none.
    "srun": 'while case "$1" in --*) true;; *) false;; esac; do shift; done; exec "$@"',
    "hostname": "echo 127.0.0.1 10.0.0.1",
    "ray": 'echo "ray $*" >> "$TOLD"; case "$*" in *--head*) exec python "$LISTEN" "$@";; *) exec sleep 60;; esac',
    "fde": 'trap "echo terminated >> $TOLD; exit 130" TERM; echo "fde $*" >> "$TOLD"; '
    'echo "token ${#RAY_AUTH_TOKEN}" >> "$TOLD"; [ -n "${SLOW:-}" ] && { sleep 60 & wait; }; exit 6',
}
LISTEN = """
import socket, sys, time
port = next(int(a.partition("=")[2]) for a in sys.argv if a.startswith("--port="))
with socket.create_server(("127.0.0.1", port)):
    time.sleep(60)
"""


def port_of(job: int) -> int:
    """Where the script lets the head of a job listen."""
    return 20000 + job % 12000


def job_with_a_free_port() -> int:
    """The number of a job whose port nobody listens on or talks from: on a cluster, the job has its nodes alone."""
    for job in range(os.getpid(), os.getpid() + 1000):
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port_of(job)))
            except OSError:
                continue
            return job
    raise AssertionError("a thousand ports are taken")


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """Slurm's commands, Ray and the engine as scripts that tell what they were asked."""
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "listen.py").write_text(LISTEN)
    return {
        **os.environ,
        "FDE_ENV": str(tmp_path),
        "TOLD": str(tmp_path / "told"),
        "LISTEN": str(tmp_path / "listen.py"),
        "SLURM_JOB_ID": str(job_with_a_free_port()),
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_PER_TASK": "a100:2",
    }


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize("ends", ["by itself", "by Slurm"])
def test_the_slurm_script_starts_a_cluster_and_ends_with_the_commands_exit_code(slurm, tmp_path, ends):
    if ends == "by Slurm":
        slurm["SLOW"] = "1"
    command = ["bash", str(DEPLOY / "slurm.sbatch"), "annotate", "/data set", "-r", "my.yaml"]
    with subprocess.Popen(command, env=slurm, start_new_session=True) as job:
        told = tmp_path / "told"
        # Also of the workers: they start beside the command, and may come after it.
        while not told.exists() or not all(
            part in told.read_text() for part in ("token", "ray start --block")
        ):
            time.sleep(0.05)
        if ends == "by Slurm":
            job.send_signal(signal.SIGTERM)
        code = job.wait()
        os.killpg(job.pid, signal.SIGKILL)  # on a cluster, Slurm ends what the job leaves
    lines = told.read_text().splitlines()
    job_id = slurm["SLURM_JOB_ID"]
    port = port_of(int(job_id))
    head = next(line for line in lines if line.startswith("ray start --head"))
    assert f"--port={port}" in head and "--num-cpus=16" in head and "--num-gpus=2" in head
    assert any(f"ray start --block --address=127.0.0.1:{port}" in line for line in lines)
    assert f"fde annotate /data set -r my.yaml --address 127.0.0.1:{port}" in lines and "token 64" in lines
    requeued = f"scontrol requeue {job_id}" in lines
    assert (code, "terminated" in lines, requeued) == (
        (130, True, True) if ends == "by Slurm" else (6, False, False)
    )


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
@pytest.mark.parametrize("before", ["for _", "driver=$!", "code=0"])
def test_the_slurm_script_is_run_again_when_its_time_ends_while_the_command_starts(slurm, tmp_path, before):
    told = tmp_path / "told"
    # Bash runs this first, and then asks it before each command: TERM comes just before one of them.
    (tmp_path / "early").write_text("""trap '[[ $BASH_COMMAND == "$BEFORE"* ]] && kill -TERM $$' DEBUG\n""")
    environment = {**slurm, "SLOW": "1", "BASH_ENV": str(tmp_path / "early"), "BEFORE": before}
    command = ["bash", str(DEPLOY / "slurm.sbatch"), "annotate", "/data", "-r", "my.yaml"]
    with subprocess.Popen(command, env=environment, start_new_session=True) as job:
        code = job.wait()
        os.killpg(job.pid, signal.SIGKILL)
    assert code in (130, 128 + signal.SIGTERM)  # the latter where the command had not begun
    assert f"scontrol requeue {slurm['SLURM_JOB_ID']}" in told.read_text().splitlines()


def queries(panel: Any) -> list[str]:
    """Every query of a Grafana dashboard, at any depth."""
    if isinstance(panel, dict):
        own = [panel["expr"]] if isinstance(panel.get("expr"), str) else []
        return own + [query for value in panel.values() for query in queries(value)]
    return [query for value in panel for query in queries(value)] if isinstance(panel, list) else []


def test_the_dashboard_asks_only_for_metrics_and_labels_that_the_code_exports():
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    exported = {f"ray_{name}" for name in (*GAUGES, *COUNTERS)}
    exported |= {f"ray_{UNIT_SECONDS}_{part}" for part in ("bucket", "sum", "count")}
    asked = queries(dashboard)
    used = {name for query in asked for name in re.findall(r"\bray_fde_\w+", query)}
    assert used and used <= exported
    assert {f"ray_{name}" for name in (*GAUGES, *COUNTERS)} - used == set(), "a metric that no panel shows"
    labels = {label for query in asked for label in re.findall(r"(\w+)\s*=~?\s*\"", query)}
    assert labels <= set(TAGS)
    grouped = {
        label.strip()
        for query in asked
        for by in re.findall(r"by \(([^)]*)\)", query)
        for label in by.split(",")
    }
    assert grouped <= {*TAGS, "le"}
