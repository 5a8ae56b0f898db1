"""A Ray cluster of several nodes on this machine, each of them processes of its own that can be killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[1]

_CPUS_OF_A_NODE = 2
_STORE_BYTES = 100 << 20
_START_SECONDS = 300
_PATIENCE_SECONDS = 60
"""A busy machine takes its time, and a raylet whose agents take longer than 15 seconds ends itself."""


class Node:
    """One `ray start`: its raylet, its agents, and the workers that the raylet starts."""

    def __init__(self, options: Sequence[str], environment: dict[str, str], log: Path) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        fixed = ["--block", "--disable-usage-stats", f"--object-store-memory={_STORE_BYTES}"]
        self.log = log
        with log.open("w") as said:
            self.process = subprocess.Popen(
                [ray, "start", *fixed, *options], cwd=ROOT, env=environment, stdout=said, stderr=said
            )

    def up(self, seconds: float) -> bool:
        """Whether it is up, after that time at most."""

        def started() -> bool:
            return "Ray runtime started" in self.log.read_text()

        wait_until(lambda: started() or self.process.poll() is not None, seconds)
        return started()

    def family(self) -> list[psutil.Process]:
        """Its processes, the raylet before the workers that it would start anew."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        return [process for process in self.family() if _name(process).startswith("ray::UnitActor")]

    def kill(self) -> None:
        """SIGKILL to every process of the node: what a machine looks like whose power is cut."""
        for process in self.family():
            _end(process)
        self._ended()

    def kill_raylet(self) -> None:
        """SIGKILL to the raylet alone. Its workers find out by themselves, and may still write until then."""
        for process in self.family():
            if _name(process) == "raylet":
                _end(process)
        self._ended()

    def _ended(self) -> None:
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Cluster:
    """A head without CPUs and `nodes` further nodes. A context manager: nothing of it stays.

    Its files lie in a short folder of its own, since paths of sockets have 107 characters at most, and
    since Ray's default folder would name it as the machine's current cluster.
    """

    def __init__(self, nodes: int, environment: dict[str, str] | None = None) -> None:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", **(environment or {})}
        # Idle workers for work that may never come cost a second of a core each.
        self.environment |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
        self.environment["RAY_raylet_start_wait_time_s"] = str(_START_SECONDS)
        self.environment.pop("RAY_ADDRESS", None)
        self.folder = Path(tempfile.mkdtemp(prefix="fde", dir="/tmp"))
        self.size = nodes
        self.started = 0
        self.nodes: list[Node] = []
        self.head: Node | None = None
        self.address = ""
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the head, then the nodes one after the other: of two that start together both may choose the same
        free port. One that does not come up is started anew."""
        while True:
            port = free_port()
            self.address = f"127.0.0.1:{port}"
            fixed = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", f"--temp-dir={self.folder}"]
            self.head = Node(
                [*fixed, "--num-cpus=0", "--include-dashboard=false"], self.environment, self._log()
            )
            if self.head.up(_PATIENCE_SECONDS):
                break
            self.head.kill()
        self.start_nodes()

    def start_nodes(self) -> None:
        """Until there are as many as there should be."""
        while len(self.nodes) < self.size:
            node = self.add()
            if not node.up(_PATIENCE_SECONDS):
                self.lose(node)

    def _log(self) -> Path:
        self.started += 1
        return self.folder / f"node-{self.started}.log"

    def add(self) -> Node:
        """A further node; it joins when it is up, which `Node.up` waits for."""
        node = Node(
            [f"--address={self.address}", "--node-ip-address=127.0.0.1", f"--num-cpus={_CPUS_OF_A_NODE}"],
            self.environment,
            self._log(),
        )
        self.nodes.append(node)
        return node

    def lose(self, node: Node, how: str = "node") -> None:
        """Kill a whole node, or its raylet alone (`how` = "raylet")."""
        self.nodes.remove(node)
        if how == "raylet":
            node.kill_raylet()
        else:
            node.kill()

    def lose_head(self) -> None:
        """Kill the head's processes; what is left of the cluster is of no use then and is killed too."""
        self.stop()

    def stop(self) -> None:
        for node in [*([self.head] if self.head else []), *self.nodes]:
            node.kill()
        self.nodes, self.head = [], None


def _name(process: psutil.Process) -> str:
    try:
        return process.name() if process.name() == "raylet" else " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def wait_until(true, seconds: float = 120.0, every: float = 0.05) -> bool:
    """Wait until `true()`; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(every)
    return False
