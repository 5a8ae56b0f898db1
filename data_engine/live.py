"""Which drivers work on a data set now: one small file each, renewed while they live.

    live/<run id>.json    what the driver is and how far its stages are; removed when its run record is written

Whoever can read the data set can read them: no driver answers, and none has to be reachable. A file that was not
renewed for five of its intervals is a driver that is gone. Age is the store's own: the difference between the
modification times of two files, or of the file and now, so that no two machines' clocks have to agree.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_engine.dataset import NAME, Dataset
from data_engine.errors import DatasetError, FdeError

EVERY = 10.0
"""Seconds between two renewals."""

_LAST_BEAT_SECONDS = 30.0

_GONE_AFTER = 5
"""Intervals without a renewal after which a driver counts as gone."""


@dataclass(frozen=True)
class Driver:
    """A live file as it was read. `age` is the time since it was last renewed, in seconds."""

    run_id: str
    age: float
    gone: bool
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        stages = self.told.get("stages")
        return stages if isinstance(stages, dict) else {}

    @property
    def who(self) -> str:
        """`user@host (process 123)`."""
        told = self.told
        return f"{told.get('user')}@{told.get('host')} (process {told.get('pid')})"


@contextmanager
def beating(
    dataset: Dataset, run_id: str, describe: Callable[[], dict[str, Any]], every: float | None = None
) -> Iterator[None]:
    """Keep the live file of a run renewed by a thread of its own: a unit may take longer than a beat lasts.

    The caller removes the file (`forget`) once the run record is written. Raises StorageError where the first
    cannot be written; later ones that fail are left out, since the next may succeed.
    """
    every = EVERY if every is None else every
    ended = threading.Event()

    def beat() -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        told = {"run_id": run_id, **describe(), "beat": now, "every": every}
        dataset.store.write_bytes(_name(run_id), (json.dumps(told, indent=1) + "\n").encode())

    def keep_beating() -> None:
        while not ended.wait(every):
            with suppress(FdeError):
                beat()

    beat()
    thread = threading.Thread(target=keep_beating, name="live file", daemon=True)
    try:
        thread.start()
        yield
    finally:
        ended.set()
        # A store that is out of reach holds a beat up for minutes; this process need not wait for it. The file that
        # the beat may leave is one of a driver that is gone, whose record is there.
        if thread.is_alive():  # not where Ctrl-C came before it was
            thread.join(_LAST_BEAT_SECONDS)


def forget(dataset: Dataset, run_id: str) -> None:
    """Remove a run's live file; it is no error when it is not there."""
    dataset.store.delete(_name(run_id))


def drivers(dataset: Dataset, mine: str | None = None) -> list[Driver]:
    """The drivers of a data set but `mine`, gone ones too, by their run ids. Files that cannot be read are left out.

    With `mine`, the run id of a file that was just written, ages are told against that file.
    """
    stamps = dataset.store.stamps("live", ".json")
    files = {name.removesuffix(".json"): stamp for name, stamp in stamps.items()}
    own = files.pop(mine, None) if mine is not None else None
    now = own.mtime / 1e9 if own is not None and own.mtime is not None else time.time()
    made = []
    for run_id in sorted(files):
        told = _read(dataset, run_id)
        if told is not None:
            renewed = files[run_id].mtime
            since = renewed / 1e9 if renewed is not None else _timestamp(told.get("beat"))
            every = told.get("every")
            limit = _GONE_AFTER * (every if isinstance(every, int | float) and every > 0 else EVERY)
            age = max(0.0, now - since)
            made.append(Driver(run_id, age, age > limit or _process_ended(told), told))
    return made


def others(dataset: Dataset, run_id: str, fingerprints: Mapping[str, str]) -> list[Driver]:
    """The drivers that live, but this one. Raises DatasetError where one of them runs one of these stages with another
    fingerprint.

    The two would replace each other's shards. With the same fingerprints both write the same rows, so
    whichever comes last changes nothing. To be called once the own live file is there: of two drivers that start
    at once, at least one then sees the other.
    """
    alive = [driver for driver in drivers(dataset, run_id) if not driver.gone]
    for driver in alive:
        for name, stage in driver.stages.items():
            other = stage.get("fingerprint") if isinstance(stage, dict) else None
            if name in fingerprints and other != fingerprints[name]:
                raise DatasetError(
                    f"{driver.who} runs {name} on this data set now, by another recipe, code or weights "
                    f"(run {driver.run_id}, last seen {driver.age:.0f} s ago)",
                    "wait until it is done or stop it (fde status tells), or work on another data set; if it is "
                    f"gone for certain, remove {_name(driver.run_id)} from the data set's folder",
                )
    return alive


def place() -> str:
    """Names the kernel and process space of this process, within which its process number means something."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _name(run_id: str) -> str:
    return f"live/{run_id}.json"


def _read(dataset: Dataset, run_id: str) -> dict[str, Any] | None:
    if not NAME.fullmatch(run_id):
        return None
    with suppress(FdeError, ValueError, RecursionError):
        told = json.loads(dataset.store.read(_name(run_id)))
        return told if isinstance(told, dict) else None
    return None


def _timestamp(text: Any) -> float:
    with suppress(ValueError, TypeError):
        return datetime.fromisoformat(text).timestamp()
    return 0.0


def _process_ended(told: Mapping[str, Any]) -> bool:
    """Whether the driver ran where this process runs and is there no more: then its age need not be waited for."""
    pid = told.get("pid")
    if not isinstance(pid, int) or pid <= 0 or not told.get("place") or told.get("place") != place():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
