"""What a training tells: a line of JSON for each step in the output's folder, the same for TensorBoard."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_engine.errors import MissingPackageError
from data_engine.storage import storage_errors

FILE = "log.jsonl"

_SECONDS = 30.0
"""Between two lines that a person is shown of steps alone."""
_LOOK_SECONDS = 0.5


class Log:
    """Appends to a folder's log, for a training that goes on from `step`.

    Steps that are done again stand in it twice until `compact` is called. What happened between two steps bears
    the number of the second one.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
        except ImportError as error:
            raise MissingPackageError.of(error.name or "tensorboardX", "train") from error
        self.file = folder / FILE
        with storage_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = self.file.open("ab")
            # What a kill cut short is no line; whoever reads along has not read it either.
            self._stream.truncate(sum(map(len, _whole(self.file))))
            self._board: Any = SummaryWriter(str(folder), purge_step=step or None)

    def write(self, step: int, **values: Any) -> None:
        """One line; its numbers go to TensorBoard too."""
        with storage_errors(str(self.file)):
            self._stream.write(json.dumps({"step": step} | values).encode() + b"\n")
            self._stream.flush()
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._stream.close()
        self._board.close()


def _whole(file: Path) -> Iterator[bytes]:
    """The whole lines of a log."""
    with file.open("rb") as stream:
        yield from (line for line in stream if line.endswith(b"\n"))


def compact(folder: Path) -> None:
    """Leave out what was done again later: the log is then as if nothing had interrupted the training."""
    kept: list[dict[str, Any]] = []
    last = -1
    for line in map(json.loads, _whole(folder / FILE)):
        if "share" in line:
            if line["step"] <= last:
                again = line["step"]
                kept = [old for old in kept if "event" in old or old["step"] < again + ("held_out" in old)]
            last = line["step"]
        kept.append(line)
    partial = folder / (FILE + ".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    partial.replace(folder / FILE)


def shown(line: dict[str, Any]) -> str:
    """One line of the log as a person reads it."""
    if "event" in line:
        return str(line["event"])
    if "held_out" in line:
        best = ", the best so far" if line.get("best") else ""
        return f"step {line['step']}: loss of held-out images {line['held_out']:.4f}{best}"
    parts = ", ".join(
        f"{name} {line[name]:.3f}"
        for name in ("loss", "text", "place", "dense")
        if line.get(name) is not None
    )
    return (
        f"step {line['step']}, {100 * line['share']:.0f} % of the run, {parts}, rate {line['rate']:.1e}, "
        f"{line['tokens_per_s']:,.0f} tokens/s, {line['images_per_s']:.1f} images/s"
    )


@contextmanager
def followed(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, tell what the log in `folder` gets, whichever process writes it: what happened
    at once, of steps one line in half a minute."""
    done = threading.Event()
    thread = threading.Thread(target=_follow, args=(folder / FILE, say, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _follow(file: Path, say: Callable[[str], None], done: threading.Event) -> None:
    position = sum(map(len, _whole(file))) if file.is_file() else 0
    told = float("-inf")
    step: dict[str, Any] | None = None
    last = False
    while not last:
        last = done.wait(_LOOK_SECONDS)  # what was written before the end is still read
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            stream.seek(position)
            while (text := stream.readline()).endswith(b"\n"):
                position = stream.tell()
                line = json.loads(text)
                if "share" in line:
                    step = line
                else:
                    say(shown(line))
        if step is not None and (last or time.monotonic() - told >= _SECONDS):
            say(shown(step))
            step, told = None, time.monotonic()
