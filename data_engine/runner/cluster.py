"""The Ray cluster that a run uses: an existing one by its address, or one of its own on this machine."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from data_engine.errors import ClusterError, MissingPackageError

if TYPE_CHECKING:
    from types import ModuleType


def connect(address: str | None) -> tuple[ModuleType, bool]:
    """Ray, connected to `address`, to `RAY_ADDRESS`, or to a cluster started on this machine.

    The second value says whether the cluster is ours to stop. Raises MissingPackageError without Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = address or os.environ.get("RAY_ADDRESS")
    if where and where != "local" and _has_token():
        # Ray 2.60 turns this on by itself for the cluster it starts, but not for one that it joins.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
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
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"cannot reach the Ray cluster at {where or 'this machine'}: {' '.join(str(error).split())[:300]}",
            "check --address, RAY_ADDRESS, and RAY_AUTH_TOKEN where the cluster wants one; or use --runner inline",
        ) from error
    return ray, True


def _has_token() -> bool:
    return bool(
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or (Path.home() / ".ray" / "auth_token").is_file()
    )


def _check_reachable(address: str) -> None:
    """Ray's own client ends the whole process where nobody listens; this raises OSError instead."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
