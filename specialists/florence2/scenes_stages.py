"""The shipped Florence-2's training from beginning to end: first small pictures, then larger ones.

Florence-2 itself was trained so, at 384 and then at 768 pixels (arXiv 2311.06242, section 5). Small pictures teach
language, and where things are, in less time a step; the second stage sees many more scenes, each asked about
once, and teaches what small things are. The third goes on with that on a GPU, in larger steps: it sees more scenes in
minutes than the first two in hours.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_engine.scenes.world import PRETRAINING, World
from specialists.florence2.scenes_quality import Quality
from specialists.florence2.scenes_training import FACTS, has_gpu, train
from specialists.florence2.scratch import Dimensions


@dataclass(frozen=True)
class Stage:
    """`share` of the minutes, or so many `steps` as the shipped weights had; the rest is `train`'s.

    One without a share is left out where minutes are given.
    """

    share: float
    steps: int
    scenes: int
    tasks: int
    processes: int
    dimensions: Dimensions


STAGES = (
    Stage(0.46, 6394, scenes=8, tasks=4, processes=1, dimensions=Dimensions()),
    Stage(0.54, 2697, scenes=16, tasks=1, processes=2, dimensions=Dimensions(side=240, window=15)),
    Stage(0.0, 3162, scenes=64, tasks=4, processes=1, dimensions=Dimensions(side=240, window=15)),
)


def train_in_stages(
    output: Path,
    minutes: float | None = None,
    seed: int = 0,
    world: World = PRETRAINING,
    threads: int | None = None,
    evaluate_on: int = 200,
    stages: tuple[Stage, ...] = STAGES,
    **settings: Any,
) -> Quality:
    """Train for so many minutes in all, or as many steps as the shipped one; `settings` are further ones of `train`.

    An earlier stage's weights lie beside `output` until the last one is done, so that the same call goes on after
    an interruption. A stage with several processes gives each one thread. Where there is a GPU one process takes the
    steps of several, and all cores but one draw. Returns and raises what `train` does.
    """
    output = Path(output)
    if minutes is not None:
        stages = tuple(stage for stage in stages if stage.share > 0)
    gpu = has_gpu()
    start: Path | None = None
    for number, stage in enumerate(stages):
        last = number + 1 == len(stages)
        place = output if last else output.with_name(f"{output.name}.stage-{number + 1}")
        processes = 1 if gpu else stage.processes
        if last or not (place / FACTS).is_file():
            quality = train(
                place,
                minutes=1.0 if minutes is None else minutes * stage.share,
                steps=stage.steps if minutes is None else None,
                seed=seed,
                world=world,
                threads=threads if processes == 1 else 1,
                scenes=stage.scenes * stage.processes // processes,
                tasks=stage.tasks,
                processes=processes,
                workers=_painters(gpu, processes),
                dimensions=stage.dimensions,
                start=start,
                evaluate_on=evaluate_on if last else 1,
                **settings,
            )
        start = place
    for number in range(len(stages) - 1):
        shutil.rmtree(output.with_name(f"{output.name}.stage-{number + 1}"))
    return quality


def _painters(gpu: bool, processes: int) -> int:
    """Processes that draw: beside several that learn there is no core left for one."""
    if gpu:
        return max(1, (os.cpu_count() or 1) - 1)
    return 1 if processes == 1 else 0
