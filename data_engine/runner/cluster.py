"""The Ray cluster that a run uses: an existing one by its address, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from data_engine.errors import ClusterError, MissingPackageError

if TYPE_CHECKING:
    from types import ModuleType

_HEAD_SECONDS = 3.0
_HEAD_PATIENCE = 25.0


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
        raise MissingPackageError.of("ray", "ray") from error
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


def request_room(bundles: list[dict[str, float]]) -> None:
    """Ask the cluster's autoscaler, where there is one, for nodes that hold all these at once; [] withdraws it."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


class HeadWatch:
    """Looks every few seconds whether the cluster's head still answers.

    Ray's own client ends the whole process, without an exception, a minute after it lost the head; so that must
    be noticed before, and nothing may be asked of Ray afterwards.
    """

    def __init__(self, ray: ModuleType) -> None:
        self._address: str = ray.get_runtime_context().gcs_address
        self._asked = self._answered = time.monotonic()
        self.lost = False

    def check(self) -> None:
        """Raises ClusterError where the head has not answered for half a minute."""
        now = time.monotonic()
        if now - self._asked < _HEAD_SECONDS:
            return
        try:
            _check_reachable(self._address, timeout=_HEAD_SECONDS)
        except OSError as error:
            self.lost = time.monotonic() - self._answered > _HEAD_PATIENCE
            if self.lost:
                raise ClusterError(
                    f"the head of the Ray cluster at {self._address} does not answer any more: {error}",
                    "finished shards are kept: run the same command again when the cluster is back",
                ) from error
        else:
            self._answered = time.monotonic()
        self._asked = time.monotonic()


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
