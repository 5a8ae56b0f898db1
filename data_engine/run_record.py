"""The record of one invocation: who ran what, on what, how far it came, and what it cost in device-hours.

While an invocation lasts, its record is its live file (data_engine.live); when it ends it becomes one row per stage in
`runs/<run id>.parquet`. A driver that ends without a word leaves its live file behind, of which the next one makes
the record: its work is counted up to its last sign of life.
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import shlex
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine import __version__, live
from data_engine.blanked import blanked
from data_engine.dataset import Dataset
from data_engine.errors import FdeError, IncompleteError
from data_engine.fingerprint import digest
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.plan import Stage
from data_engine.runner.progress import StageProgress

_SHARDS_TOLD = 100
"""Shards that a live file names of a stage, running or failed: it is read often, and by many."""

_ERROR = 2_000
"""Characters of the error line that a record keeps."""

_TOLD = (
    "command",
    "recipe",
    "status",
    "user",
    "host",
    "arguments",
    "recipe_digest",
    "recipe_json",
    "runner",
    "exit_code",
)
"""Columns of a record that are as the live file has them."""

_DONE: dict[str, Any] = {"status": "done", "exit_code": 0}
_INCOMPLETE: dict[str, Any] = {"status": "incomplete", "exit_code": IncompleteError.exit_code}
_INTERRUPTED: dict[str, Any] = {"status": "interrupted", "exit_code": 130}
_FAILED: dict[str, Any] = {"status": "failed", "exit_code": 1}

_NO_RECORD = (ValueError, TypeError, KeyError, AttributeError, OverflowError, pa.ArrowException)
"""What comes of a live file that this version did not write."""

_PACKAGES = ("ray", "torch", "transformers", "pyarrow", "duckdb", "numpy")


@dataclass(frozen=True)
class Run:
    """An invocation as it begins. `recipe_json` is the recipe as it was checked, without secrets; both it and the
    recipe's name are empty where there is none."""

    run_id: str
    command: str
    recipe: str
    recipe_json: str
    runner: str
    started: datetime

    @classmethod
    def begin(cls, command: str, recipe: Recipe | None, runner: str) -> Run:
        started = datetime.now(UTC)
        run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        checked = "" if recipe is None else blanked(recipe.model_dump_json(exclude_defaults=True))
        return cls(run_id, command, "" if recipe is None else recipe.name, checked, runner, started)

    def described(self) -> dict[str, Any]:
        """What is the same from begin to end, as JSON."""
        return {
            "command": self.command,
            "recipe": self.recipe or None,
            "recipe_json": self.recipe_json or None,
            "recipe_digest": digest(self.recipe_json) if self.recipe_json else None,
            "runner": self.runner,
            "started": self.started.isoformat(),
            "user": _user(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "place": live.place(),
            "arguments": blanked(_command_line()),
            "versions": _versions(),
        }


@contextmanager
def recorded(
    dataset: Dataset, run: Run, stages: Mapping[str, Stage], progress: Mapping[str, StageProgress]
) -> Iterator[list[live.Driver]]:
    """Keep the live file while the body runs, and write the run's record when it ends, however it does.

    Gives the other drivers that live. The stages are told and recorded under the keys of `stages`, which `progress` has too. Raises DatasetError before
    the body, and keeps no record, where another driver runs one of these stages with another fingerprint.
    """
    same = run.described()
    clock = time.monotonic()
    ending = _FAILED
    refused = False

    def describe() -> dict[str, Any]:
        told = {name: _stage(stages[name], progress[name]) for name in stages}
        return {**same, "seconds": time.monotonic() - clock, "stages": told}

    with ExitStack() as heart:
        # From the first beat on a driver may be asked to end: what is told of it must become its record.
        try:
            try:
                heart.enter_context(live.beating(dataset, run.run_id, describe))
                alive = live.others(dataset, run.run_id, {name: s.fingerprint for name, s in stages.items()})
                bury(dataset, run.run_id)
            except FdeError:
                refused = True
                raise
            yield alive
            failed = any(stage.units_failed for stage in progress.values())
            ending = _INCOMPLETE if failed else _DONE
        except (KeyboardInterrupt, SystemExit):
            ending = _INTERRUPTED
            raise
        except FdeError as error:
            ending = {**ending, "exit_code": error.exit_code, "error": error.message}
            raise
        except Exception as error:
            ending = {**ending, "error": f"{type(error).__name__}: {error}"}
            raise
        finally:
            heart.close()  # no beat may come after the live file is removed
            # A run that fails because nothing can be written must end with that reason, not this one's.
            with suppress(FdeError):
                if refused:
                    live.forget(dataset, run.run_id)
                else:
                    _end(dataset, run.run_id, {**describe(), **ending})


def record_ingest(dataset: Dataset, run: Run, seconds: float, failures: int) -> None:
    """The record of an ingest that has ended; before its end there is no data set to keep one in."""
    info = dataset.info
    progress = StageProgress(
        "ingest", info.images, info.images, failures, units_done=info.shards, units=info.shards
    )
    stage = Stage("ingest", SpecialistPart(use="data_engine.ingest.run:ingest"), info.fingerprint, [], 0, 0)
    told = {**run.described(), "seconds": seconds, "stages": {"ingest": _stage(stage, progress)}, **_DONE}
    with suppress(FdeError):  # the data set is there, and its ingest has succeeded without
        dataset.write_run(run.run_id, _rows(run.run_id, told))


def _end(dataset: Dataset, run_id: str, told: Mapping[str, Any]) -> None:
    """Write a run's record, then remove its live file: one of the two is always there."""
    dataset.write_run(run_id, _rows(run_id, told))
    live.forget(dataset, run_id)


def bury(dataset: Dataset, mine: str | None = None) -> None:
    """Make records, of status `lost`, of the drivers that are gone, and remove their live files.

    A driver that was only out of reach replaces its record by the true one when it ends. A record that is there
    already is left as it is: the driver ended, and could not remove its live file.
    """
    for driver in live.drivers(dataset, mine):
        if driver.gone:
            with suppress(*_NO_RECORD):
                if not dataset.store.exists(f"runs/{driver.run_id}.parquet"):
                    dataset.write_run(driver.run_id, _rows(driver.run_id, {**driver.told, "status": "lost"}))
            live.forget(dataset, driver.run_id)


def _stage(stage: Stage, progress: StageProgress) -> dict[str, Any]:
    """How far one stage is. The runner goes on in another thread meanwhile, so what changes is copied first."""
    running, failed = list(progress.running), dict(progress.failed)
    return {
        "fingerprint": stage.fingerprint,
        "units": {
            "total": progress.units,
            "done": progress.units_done,
            "skipped": progress.units_skipped,
            "failed": progress.units_failed,
            "running": running[:_SHARDS_TOLD],
            "left": progress.left,
        },
        "images": progress.images,
        "images_here": progress.images - progress.skipped_images,
        "total_images": progress.total,
        "failures": progress.failures,
        "annotations": progress.annotations,
        "images_per_s": progress.rate,
        "eta_s": progress.eta,
        "actors": progress.actors,
        "actor_seconds": progress.actor_seconds,
        "cpus": stage.part.cpus,
        "gpus": stage.part.gpus,
        "redone": progress.redone,
        "failed": {shard: blanked(why) for shard, why in list(failed.items())[:_SHARDS_TOLD]},
    }


def _rows(run_id: str, told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `runs` of what a live file tells."""
    started = datetime.fromisoformat(told["started"])
    seconds = told.get("seconds")
    if seconds is None:
        seconds = (datetime.fromisoformat(told["beat"]) - started) / timedelta(seconds=1)
    same = {
        "run_id": run_id,
        "started": started,
        "seconds": seconds,
        "version": __version__,
        "versions": json.dumps(told["versions"]),
        "error": blanked(told.get("error") or "")[:_ERROR] or None,
        **{key: told.get(key) for key in _TOLD},
    }
    rows = []
    for name, stage in told["stages"].items():
        hours = stage["actor_seconds"] / 3600
        rows.append(
            {
                **same,
                "stage": name,
                "fingerprint": stage["fingerprint"],
                **{f"units_{key}": stage["units"][key] for key in ("done", "skipped", "failed")},
                "units_redone": stage["redone"],
                "images": stage["images_here"],
                **{key: stage[key] for key in ("annotations", "failures", "cpus", "gpus", "actor_seconds")},
                "cpu_hours": hours * stage["cpus"],
                "gpu_hours": hours * stage["gpus"],
            }
        )
    return rows


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as containers have
        return str(os.getuid())


def _command_line() -> str:
    program = Path(sys.argv[0])
    fde = program.name == "fde" or (program.name == "__main__.py" and program.parent.name == "pipelines")
    return shlex.join(["fde" if fde else sys.argv[0], *sys.argv[1:]])


def _versions() -> dict[str, str]:
    """Of Python, this project, and the packages that output depends on, as far as they are installed."""
    found = {"python": platform.python_version(), "florence-data-engine": __version__}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
