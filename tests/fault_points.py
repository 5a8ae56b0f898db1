"""A command killed before each of its file operations in turn: `python -m tests.fault_points FOLDER TABLES COMMAND...`

FOLDER holds `before` (the data set as the command finds it) and `calm` (as the command leaves it undisturbed).
For n = 0, 1, ... a copy of `before`, `FOLDER/target`, is given to COMMAND, in which `{}` stands for the copy's path;
it is killed by SIGKILL just before its n-th opening for writing, renaming or removal there. All that stands is compared
with `calm`, the command is run again, and the whole is compared. Prints one JSON object per point; ends after the
first n that the command no longer reaches.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from tests.fault_children import Child, fde, import_all
from tests.fault_compare import differences

_OPERATIONS = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0}
"""Audited operations, and which of their arguments is the path that counts."""

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


def main(folder: Path, tables: list[str], command: list[str]) -> None:
    import_all()
    before, calm, target = folder / "before", folder / "calm", folder / "target"
    said = folder / "said"

    def run() -> None:
        fde(*(argument.replace("{}", str(target)) for argument in command))

    def compare(finished: bool) -> None:
        found = differences(calm, target, finished=finished, tables=tables)
        if found:
            raise SystemExit("; ".join(found))

    def recover() -> None:
        compare(finished=False)
        try:
            run()
        except SystemExit as ended:
            if ended.code:
                raise
        compare(finished=True)

    number = 0
    while True:
        shutil.rmtree(target, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, target)
        first = Child(lambda number=number: (kill_before(number, target), run()), said).ended()
        second = Child(recover, said).ended()
        point = {"point": number, "where": first.text.splitlines()[-1:], "first": first.code}
        told = second.text if second.code else ""
        print(json.dumps({**point, "second": second.code, "told": told}), flush=True)
        if first.code != -signal.SIGKILL:
            return
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
