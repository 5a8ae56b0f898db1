"""A training's working folder: what it needs to go on after an end at any moment.

OUTPUT.training/
  plan.json        what is learnt from, the tokenizer, and the fingerprint of settings and data
  state.pt         weights, averages, moments, and how far it is; replaced in one step
  best-<step>.pt   the averages that did best on held-out images
  student/         what becomes OUTPUT in one rename: the log, at the end the checkpoint
  last-good/       where the loss stopped being a number: the checkpoint of the last state before
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.errors import RecipeError
from data_engine.storage import storage_errors


@dataclass(frozen=True)
class Working:
    """The working folder of one output."""

    folder: Path

    @classmethod
    def of(cls, output: Path) -> Working:
        return cls(output.with_name(output.name + ".training"))

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def state(self) -> Path:
        return self.folder / "state.pt"

    @property
    def student(self) -> Path:
        return self.folder / "student"

    @property
    def last_good(self) -> Path:
        return self.folder / "last-good"

    def best(self, step: int) -> Path:
        return self.folder / f"best-{step}.pt"

    def sweep(self, best: int | None) -> None:
        """Remove averages that are no longer the best."""
        for file in self.folder.glob("best-*.pt"):
            if best is None or file != self.best(best):
                file.unlink(missing_ok=True)


def write_tensors(file: Path, value: dict[str, Any]) -> None:
    """Tensors and plain values, in one step: the file is the old one or the new one at any moment.

    Raises StorageError where the disk is full; the old file is then still there.
    """
    import torch

    partial = file.with_name(file.name + ".partial")
    with storage_errors(str(file)):
        try:
            with partial.open("wb") as stream, _disk_errors(stream):
                torch.save(value, stream)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _disk_errors(stream: Any) -> Iterator[None]:
    """torch's writer tells a full disk as an error of its own; the system's stands behind it."""
    try:
        yield
    except RuntimeError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError):
            raise cause from error
        # Asked for once more, the system says itself what is wrong.
        stream.write(b"\0" * (1 << 16))
        stream.flush()
        raise


def read_tensors(file: Path) -> dict[str, Any] | None:
    """What `write_tensors` wrote; None where there is no file. Nothing in it is executed.

    Raises RecipeError for a file that is something else.
    """
    import torch

    if not file.is_file():
        return None
    try:
        value: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a damaged or foreign file makes torch raise
        raise RecipeError(
            f"{file} is not the working file of a training", "remove it to begin anew"
        ) from error
    return value
