"""The protocol of what trains a student: a recipe's `refine.student`. There is no base class and no registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_engine.dataset import Dataset


@dataclass(frozen=True)
class Learn:
    """What is learnt from.

    The statements of `sources`, of which those are left out that round `verdicts` of the filters dropped
    (None: all count). The share `held_out` of the images (`data_engine.held_out`) teaches nothing: its
    loss tells when to stop.
    """

    sources: tuple[str, ...]
    verdicts: int | None
    held_out: float


class Trainer(Protocol):
    """Built once with the recipe's `args`."""

    def train(
        self, dataset: Dataset, learn: Learn, output: Path, start: Path | None, say: Callable[[str], None]
    ) -> None:
        """Train on a data set; when this returns, `output` is a complete checkpoint with `training.json`.

        `start`, the folder of an earlier student, stands before the start that the args name. The same
        call goes on with a training of the same output that was interrupted. `say` is told how it goes,
        a line at a time. Raises FdeError with one line that says what is wrong.
        """
        ...
