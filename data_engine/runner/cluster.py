"""The Ray cluster that a run uses: an existing one by its address, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from data_engine.errors import ClusterError, MissingPackageError

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("data_engine")

_ASK_SECONDS = 1.0
_SILENT_SECONDS = 5.0
_LOST_SECONDS = 30.0


def connect(address: str | None) -> tuple[ModuleType, bool]:
    """Ray, connected to `address`, to `RAY_ADDRESS`, or to a cluster started on this machine.

    The second value says whether the cluster is ours to stop. Raises MissingPackageError without Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = address or os.environ.get("RAY_ADDRESS")
    if where and where != "local":
        offer_token()
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingPackageError.of(error.name or "ray", "ray") from error
    if ray.is_initialized():
        return ray, False
    try:
        if where and where != "local":
            _check_reachable(where)
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
        else:
            # Without "local" Ray would join whichever cluster was last started on this machine.
            ray.init(
                address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
    except Exception as error:  # Ray says with a bare Exception that a node did not start in time
        raise ClusterError(
            f"cannot reach the Ray cluster at {where or 'this machine'}: {' '.join(str(error).split())[:300]}",
            "check --address, RAY_ADDRESS, and RAY_AUTH_TOKEN where the cluster wants one; or use --runner inline",
        ) from error
    return ray, True


class Cluster:
    """What a run asks of a cluster's head, by a thread of its own.

    Ray's client waits where the head does not answer, and ends the whole process, without an exception, a minute
    after it lost it. So the run itself never waits for the head, and notices before that minute is over.
    """

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray
        self._address: str = ray.get_runtime_context().gcs_address
        self._nodes: list[dict[str, Any]] = ray.nodes()
        self._answered = time.monotonic()
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="cluster", daemon=True)
        self._thread.start()

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes as `ray.nodes()` gave them a second ago, or before the head fell silent."""
        return self._nodes

    @property
    def silent(self) -> bool:
        """Whether the head owes an answer for some seconds."""
        return time.monotonic() - self._answered > _SILENT_SECONDS

    def answers(self) -> bool:
        """Whether the head can be reached now: to be asked before an actor is made, for which Ray waits for it."""
        try:
            _check_reachable(self._address, timeout=_SILENT_SECONDS)
        except OSError:
            return False
        return True

    @property
    def lost(self) -> bool:
        return time.monotonic() - self._answered > _LOST_SECONDS

    def check(self) -> None:
        """Raises ClusterError where the head has not answered for half a minute."""
        if self.lost:
            raise ClusterError(
                f"the head of the Ray cluster at {self._address} does not answer any more",
                "finished shards are kept: run the same command again when the cluster is back",
            )

    def kill(self, actor: Any) -> None:
        self._jobs.put(lambda: self._ray.kill(actor))

    def ask_for(self, bundles: list[dict[str, float]]) -> None:
        """Ask the autoscaler, where there is one, for nodes that hold all these at once; [] withdraws it."""
        from ray.autoscaler.sdk import request_resources

        self._jobs.put(lambda: request_resources(bundles=bundles))

    def close(self) -> None:
        """Wait until what was asked is done, unless the head is silent."""
        self._jobs.put(None)
        while self._thread.is_alive() and not self.silent:
            self._thread.join(timeout=0.1)

    def _work(self) -> None:
        asked = self._answered
        while True:
            job: Callable[[], object] | None = self._look
            with suppress(Empty):
                job = self._jobs.get(timeout=max(0.0, asked + _ASK_SECONDS - time.monotonic()))
            if job is None:
                return
            if job == self._look:
                asked = time.monotonic()
            try:
                _check_reachable(self._address)  # or Ray would wait, and could not be left before it gives up
                job()
            except Exception as error:  # noqa: BLE001 - Ray has a dozen; what counts is that there was no answer
                log.debug("the cluster's head: %s", error)
            else:
                self._answered = time.monotonic()

    def _look(self) -> None:
        self._nodes = self._ray.nodes()


def offer_token() -> None:
    """Let Ray show the user's token, if there is one, to a cluster that it does not start itself.

    Ray 2.60 turns this on by itself for the cluster it starts, but not for one that it joins.
    """
    if (
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or (Path.home() / ".ray" / "auth_token").is_file()
    ):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _check_reachable(address: str, timeout: float = 10) -> None:
    """Ray's own client ends the whole process where nobody listens; this raises OSError instead."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
