"""A command killed before each of its file operations in turn: `python -m tests.fault_points FOLDER TABLES COMMAND...`

FOLDER holds `before` (the data set as the command finds it) and `calm` (as the command leaves it undisturbed).
For n = 0, 1, ... a copy of `before`, `FOLDER/target`, is given to COMMAND, in which `{}` stands for the copy's path;
it is killed by SIGKILL just before its n-th opening for writing, renaming or removal there. All that stands is compared with `calm`, the command is run again, and the whole is compared.
Prints one JSON object per point; ends after the first n that the command no longer reaches.

The children are forked from a process that has imported everything and started nothing: a fraction of a
second per point instead of several.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fault_compare import differences

_OPERATIONS = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0}
"""Audited operations, and which of their arguments is the path that counts."""

_IMPORTED = (
    "data_engine.dataset",
    "data_engine.ingest.formats",
    "data_engine.ingest.run",
    "pipelines.annotate",
    "pipelines.filter",
    "tests.fault_specialists",
)
"""Commands import when they run; here it must have been done before the fork."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kill_before(number: int, folder: Path) -> None:
    """From here on this process ends itself just before the `number`-th operation in the folder."""
    left = number

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            path = arguments[0]
        elif event in _OPERATIONS:
            path = arguments[_OPERATIONS[event]]
        else:
            return
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(folder)):
            if left == 0:
                print(f"{event} {os.path.relpath(path, folder)}", file=sys.stderr, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(watch)


def in_child(work: Callable[[], None], said: Path) -> int:
    """Do some work in a process of its own, with its output in a file; its exit code, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with said.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
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
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: Path, tables: list[str], command: list[str]) -> None:
    for module in _IMPORTED:
        importlib.import_module(module)
    from pipelines import cli

    before, calm, target = folder / "before", folder / "calm", folder / "target"
    said = folder / "said"

    def fde() -> None:
        sys.argv = ["fde", *(argument.replace("{}", str(target)) for argument in command)]
        cli.main()

    def compare(finished: bool) -> None:
        found = differences(calm, target, finished=finished, tables=tables)
        if found:
            raise SystemExit("; ".join(found))

    def recover() -> None:
        compare(finished=False)
        try:
            fde()
        except SystemExit as ended:
            if ended.code:
                raise
        compare(finished=True)

    number = 0
    while True:
        shutil.rmtree(target, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, target)
        first = in_child(lambda number=number: (kill_before(number, target), fde()), said)
        where = said.read_text().splitlines()[-1:]
        second = in_child(recover, said)
        told = said.read_text() if second else ""
        print(
            json.dumps({"point": number, "where": where, "first": first, "second": second, "told": told}),
            flush=True,
        )
        if first != -signal.SIGKILL:
            return
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
