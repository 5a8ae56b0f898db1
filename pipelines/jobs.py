"""Commands as jobs of a Ray cluster, through its Jobs API: submit, follow, list, stop.

The cluster runs the very command line that one would type on a node of it; inside, Ray sets RAY_ADDRESS, so the
command joins the cluster that it is a job of. What is sent is the recipe with the code beside it
(pipelines.job_package); the engine itself is installed on the cluster.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from data_engine.blanked import blanked
from data_engine.errors import ClusterError, MissingPackageError, RecipeError
from data_engine.runner.cluster import offer_token
from pipelines.job_package import note_local_places, packaged

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
COMMANDS = ("annotate", "eval", "filter", "ingest", "qa", "refine", "report", "retry", "status")
"""What can be a job: commands that end by themselves and write nothing but to their data set (or a page of it)."""

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_CONNECT_SECONDS = 10
_POLL_SECONDS = 1.0
_LONGEST_PAUSE = 30.0
_PATIENCE = 600.0
"""Seconds for which a job server may be out of reach while a job is followed."""


@dataclass(frozen=True)
class Job:
    """A job as the cluster tells it. `exit_code` is the command's own, None where it did not run to its end."""

    id: str
    status: str
    command: str
    started: datetime | None
    seconds: float | None
    exit_code: int | None
    message: str

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


def connect(address: str | None) -> JobSubmissionClient:
    """A client of the cluster's job server: `address`, RAY_API_SERVER_ADDRESS, or this machine's.

    Raises MissingPackageError without ray[default], ClusterError where no such server answers.
    """
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    where = where if "://" in where else f"http://{where}"
    os.environ["RAY_API_SERVER_ADDRESS"] = where  # else Ray prefers RAY_ADDRESS, which is no job server
    offer_token()
    try:
        import aiohttp  # noqa: F401 - what ray without [default] lacks
        from ray.job_submission import JobSubmissionClient
    except ModuleNotFoundError as error:
        raise MissingPackageError.of("ray[default]", "cluster") from error
    with _server_errors(where):
        parts = urlsplit(where)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
        return JobSubmissionClient(where)


@contextmanager
def _server_errors(address: str) -> Iterator[None]:
    """What the job server or the way to it says, as one ClusterError; a token in it is blanked."""
    from ray.exceptions import RayError

    try:
        yield
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(
            f"the job server at {blanked(address)}: {blanked(' '.join(str(error).split()))[:500]}",
            "check --address (http://HEAD:8265) or RAY_API_SERVER_ADDRESS, that the cluster's dashboard runs, and "
            "RAY_AUTH_TOKEN where it wants one",
        ) from error


def submit(
    client: JobSubmissionClient,
    arguments: Sequence[str],
    *,
    working_dir: Path | None = None,
    runtime_env: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> str:
    """Send a command line to the cluster and return the job's id. It runs until it ends or is stopped.

    `working_dir` is sent instead of what the recipe refers to, and paths of recipes are then relative to it.
    `runtime_env` is a YAML or JSON file as Ray has it. Raises RecipeError for a command that cannot be a job, or a
    recipe that is not there or not sound.
    """
    if not arguments or arguments[0] not in COMMANDS:
        raise RecipeError(
            f"{' '.join(arguments[:1]) or 'nothing'} cannot be a job",
            f"give one of {', '.join(COMMANDS)} after --, with its arguments: fde submit -- annotate DATASET",
        )
    environment = _environment(runtime_env)
    with tempfile.TemporaryDirectory(prefix="fde-job-") as scratch:
        arguments = packaged(list(arguments), working_dir, Path(scratch), note)
        if urlsplit(client.get_address()).hostname not in _THIS_MACHINE:
            note_local_places(arguments, note)
        with _server_errors(client.get_address()):
            return client.submit_job(
                entrypoint=shlex.join(["python", "-m", "pipelines", *arguments]),
                submission_id=f"fde-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
                runtime_env={**environment, "working_dir": str(working_dir or scratch)},
                metadata={"fde": blanked(shlex.join(arguments))},
            )


def _environment(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(
            f"cannot read the runtime environment {path}: {' '.join(str(error).split())}", "check the file"
        ) from error
    if not isinstance(found, dict) or "working_dir" in found:
        raise RecipeError(
            f"{path} is no runtime environment without a working_dir",
            "it is a mapping such as {pip: [...], env_vars: {...}}; the folder to send is --working-dir",
        )
    return found


def jobs(client: JobSubmissionClient) -> list[Job]:
    """All jobs of the cluster that were submitted through its Jobs API, the latest first."""
    with _server_errors(client.get_address()):
        found = [_job(details) for details in client.list_jobs() if details.submission_id]
    return sorted(found, key=lambda job: job.started or datetime.now(UTC), reverse=True)


def job(client: JobSubmissionClient, job_id: str) -> Job:
    """Raises ClusterError where there is no such job."""
    with _server_errors(client.get_address()):
        return _job(client.get_job_info(job_id))


def logs(client: JobSubmissionClient, job_id: str) -> str:
    """What a job has printed so far."""
    with _server_errors(client.get_address()):
        return client.get_job_logs(job_id)


def stop(client: JobSubmissionClient, job_id: str) -> bool:
    """Ask a job to end; False where it had ended already. Its command is interrupted and can go on later."""
    with _server_errors(client.get_address()):
        return client.stop_job(job_id)


def _job(details: Any) -> Job:
    started = None if not details.start_time else datetime.fromtimestamp(details.start_time / 1000, UTC)
    until = datetime.fromtimestamp(details.end_time / 1000, UTC) if details.end_time else datetime.now(UTC)
    return Job(
        id=str(details.submission_id),
        status=str(getattr(details.status, "value", details.status)),
        command=blanked((details.metadata or {}).get("fde") or details.entrypoint),
        started=started,
        seconds=None if started is None else (until - started).total_seconds(),
        exit_code=details.driver_exit_code,
        message=blanked(details.message or ""),
    )


def follow(client: JobSubmissionClient, job_id: str, write: Callable[[str], None]) -> Job:
    """Write a job's output as it comes, until the job has ended. Returns the job as it ended.

    A connection that breaks is made again, and the output goes on where it stopped. Raises ClusterError where the
    server stays out of reach for ten minutes; the job is not touched by that.
    """
    told, pause, reached = 0, 1.0, time.monotonic()
    while True:
        try:
            told = asyncio.run(_tail(client, job_id, told, write))
            found = job(client, job_id)
            if found.ended:
                write(logs(client, job_id)[told:])
                return found
            pause, reached = _POLL_SECONDS, time.monotonic()
        except ClusterError:
            if time.monotonic() - reached > _PATIENCE:
                raise
            pause = min(2 * pause, _LONGEST_PAUSE)
        time.sleep(pause)


async def _tail(client: JobSubmissionClient, job_id: str, told: int, write: Callable[[str], None]) -> int:
    """Write what comes after the first `told` characters; returns how many there are. Ends with the connection."""
    import aiohttp

    seen = 0
    try:
        async for text in client.tail_job_logs(job_id):
            if seen + len(text) > told:
                write(text[max(0, told - seen) :])
                told = seen + len(text)
            seen += len(text)
    except (aiohttp.ClientError, OSError, RuntimeError):
        return told
    return told


def exit_code(found: Job) -> int:
    """What `fde submit` ends with: the command's own exit code, 130 for a job that was stopped.

    Raises ClusterError for a job whose command could not be started.
    """
    if found.status == "SUCCEEDED":
        return 0
    if found.status == "STOPPED":
        return 130
    if found.exit_code is None:
        raise ClusterError(
            f"the job {found.id} did not run: {' '.join(found.message.split())[:1000]}",
            "its runtime environment may be at fault, or the cluster has no room for it",
        )
    return found.exit_code
