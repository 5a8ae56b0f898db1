"""A Florence-2 that is trained on what a data set's sources say, and what a recipe may say of its training.

    refine:
      student:
        use: specialists.florence2.student:Student
        args: {start: florence-community/Florence-2-base, epochs: 1, batch: 64, workers: 8}

What comes out is a plain checkpoint folder; docs/training.md tells how it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.trainer import Learn
from specialists.florence2.prompts import TASKS, chosen
from specialists.florence2.training.presets import preset

VERSION = 2
"""Raise it when the same settings and data give another student."""


@dataclass(frozen=True)
class Student:
    """The arguments are the settings; each may be left out, but one of `steps`, `epochs` and `minutes`.

    What it begins with:

    - `start`: a checkpoint, a folder or a name on the hub; its tokenizer is kept. Without, a model is made from
      nothing: `model` is `toy`, `small`, `base`, or dimensions (`presets.preset`).
    - `resolution`: sides of the pictures in pixels by the share of the run from which they count, such as
      `[[0, 192], [0.6, 240]]`; one number is one side. None: that of the checkpoint.
    - `freeze_vision`: the vision tower does not learn. `lora`: the rank of adapters that learn instead of the
      weights, and are merged into them at the end; 0 is none.
    - `locating`: the losses of `locating.py`, without which a small model does not learn where things are.
      None: for a model from nothing and for one that was itself trained so; not for a released checkpoint.

    What it learns:

    - `tasks` of the released models, `weights` of tasks relative to each other (the others keep theirs), and
      for each image up to `prompts` tasks with one prompt each.
    - `order` inside an answer: `released`, or `random`. `longest`: tokens of an answer at most.

    How it learns:

    - `batch`: images of a step, over all `workers`; `accumulate` parts of it pass through the model one after the
      other. Neither of the latter two changes what is learnt.
    - `rate` is the language model's highest, `vision_rate` that of what sees; None takes 7e-4 and 1e-3
      for small models, those from nothing and those that go on, and 2e-5 for released checkpoints.
      Rates rise for a share `warm_up` of the run and fall as half a cosine. `average`: decay of the average
      of weights, which is what is saved.
    - `precision`: `bfloat16`, `float32`, or `auto`: the former where the machine has instructions for it.
      `checkpointing` calculates layers twice for the sake of memory.
    - `evaluations` times in a run the loss of up to `evaluate_on` held-out images is measured; after `patience`
      of them without a better one the run ends. The best weights are what is kept. `patience` 0: never.
      `evaluations` 0: none, and the last weights are kept.

    Where it runs:

    - `runner`: `ray` (Ray Train), `inline` (this process, and others of this machine where `workers` is more than
      1), or `auto`: `ray` for several workers and where there is a cluster's `address`.
    - `readers` processes of each worker read ahead (0: none). `mixed`: shards whose images are mixed.
      `threads` of a worker on a CPU.
    - `save_minutes`, `save_steps`: how often the working state is written.
    """

    start: str | None = None
    model: str | Mapping[str, Any] = "toy"
    resolution: int | list[list[float]] | None = None
    freeze_vision: bool = False
    lora: int = 0
    locating: bool | None = None
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    weights: dict[str, float] = field(default_factory=dict)
    prompts: int = 4
    order: str = "released"
    longest: int = 512
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int = 8
    accumulate: int = 1
    rate: float | None = None
    vision_rate: float | None = None
    warm_up: float = 0.03
    average: float = 0.999
    precision: str = "auto"
    checkpointing: bool = False
    evaluations: int = 8
    evaluate_on: int = 128
    patience: int = 3
    runner: str = "auto"
    workers: int = 1
    address: str | None = None
    readers: int = 1
    mixed: int = 4
    threads: int | None = None
    save_minutes: float = 5.0
    save_steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises RecipeError for settings that cannot be."""
        chosen(self.tasks)
        preset(self.model)
        chosen(list(self.weights) or ["OD"])
        given = [self.steps, self.epochs, self.minutes]
        least_one = ("prompts", "batch", "accumulate", "workers", "mixed", "longest", "evaluate_on")
        checks = [
            (sum(value is not None for value in given) == 1, "one of steps, epochs and minutes must be given"),
            (all(value is None or value > 0 for value in given), "steps, epochs and minutes must be above 0"),
            (min(getattr(self, name) for name in least_one) >= 1, f"{', '.join(least_one)} must be at least 1"),
            (
                min(self.readers, self.lora, self.patience, self.evaluations) >= 0,
                "readers, lora, patience and evaluations must not be negative",
            ),
            (self.batch >= self.workers, "a batch needs an image for each worker"),
            (self.order in ("released", "random"), "order is released or random"),
            (self.precision in ("auto", "bfloat16", "float32"), "precision is auto, bfloat16 or float32"),
            (self.runner in ("auto", "inline", "ray"), "runner is auto, inline or ray"),
            (0 <= self.warm_up < 1 and 0 <= self.average < 1, "warm_up and average lie in 0..1"),
            (
                all(rate is None or rate > 0 for rate in (self.rate, self.vision_rate)),
                "rates must be above 0",
            ),
            (self.save_minutes > 0 and (self.save_steps or 1) >= 1, "save_minutes and save_steps must be above 0"),
            (any(weight > 0 for weight in self.mixture().values()), "no task has a weight above 0"),
            (all(weight >= 0 for weight in self.weights.values()), "weights must not be negative"),
        ]  # fmt: skip
        self.sides()
        for holds, message in checks:
            if not holds:
                raise RecipeError(f"the student's settings: {message}", "correct the recipe's `args`")

    def mixture(self) -> dict[str, float]:
        """The weight of each task that is learnt."""
        from specialists.florence2.training.examples import DEFAULT_WEIGHTS

        own = {task.name: self.weights[name] for name in self.weights for task in chosen([name])}
        return {task.name: own.get(task.name, DEFAULT_WEIGHTS[task.name]) for task in chosen(self.tasks)}

    def sides(self) -> list[tuple[float, int]]:
        """(share of the run, pixels), by rising share; empty where the checkpoint's own side is kept."""
        value = self.resolution
        if value is None:
            return []
        try:
            steps = [(0.0, value)] if isinstance(value, int) else [(float(a), int(b)) for a, b in value]
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"resolution: {value!r} is no schedule", "write for example [[0, 192], [0.6, 240]]"
            ) from error
        shares = [share for share, _ in steps]
        if (
            not steps
            or shares[0] != 0
            or sorted(set(shares)) != shares
            or shares[-1] >= 1
            or min(s for _, s in steps) < 1
        ):
            raise RecipeError(
                f"resolution: the shares of {value!r} do not rise from 0 to below 1",
                "write for example [[0, 192], [0.6, 240]]",
            )
        return steps

    def train(
        self, dataset: Dataset, learn: Learn, output: Path, start: Path | None, say: Callable[[str], None]
    ) -> None:
        """See `data_engine.trainer.Trainer`."""
        from specialists.florence2.training.run import train

        train(self, dataset, learn, Path(output), str(start) if start is not None else self.start, say)
