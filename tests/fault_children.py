"""Commands in forked children of a process that has imported everything: as a command line, in a fraction of its time."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_IMPORTED = (
    "data_engine.dataset",
    "data_engine.ingest.formats",
    "data_engine.ingest.run",
    "data_engine.logs",
    "data_engine.query",
    "pipelines.annotate",
    "pipelines.cli",
    "pipelines.filter",
    "pipelines.recipe_files",
    "tests.fault_specialists",
)


def import_all() -> None:
    """Commands import when they run; here it must have been done before the first fork."""
    for module in _IMPORTED:
        importlib.import_module(module)
    importlib.import_module("pipelines.recipe_files").builtin_recipes()  # it imports more


@dataclass(frozen=True)
class Said:
    """How a command ended: its exit code, or minus the signal that ended it, and its output."""

    code: int
    text: str

    @property
    def error(self) -> str:
        """The line with which it says what was wrong, without its hint."""
        return next((line for line in self.text.splitlines() if line.startswith("fde: ")), "")


class Child:
    """Some work in a process of its own, with its output in a file."""

    def __init__(self, work: Callable[[], object], log: Path) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            _live(work, log)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def ended(self) -> Said:
        """Wait until it has."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return Said(code, self.log.read_text(errors="replace"))


def fde(*arguments: object) -> None:
    """The command line, in this process."""
    from pipelines import cli

    sys.argv = ["fde", *map(str, arguments)]
    cli.main()


def _live(work: Callable[[], object], log: Path) -> None:
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code)
    except BaseException:  # noqa: BLE001 - a child must not go on with its parent's work
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
