"""The shipped Florence-2's training from beginning to end: first small pictures, then larger ones.

Florence-2 itself was trained so, at 384 and then at 768 pixels (arXiv 2311.06242, section 5). Small pictures teach
language, and where things are, in less time a step; the second stage sees many more scenes, each asked about
once, and teaches what small things are. The third goes on with that on a GPU, in larger steps: it sees more scenes in
minutes than the first two in hours.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_engine.errors import RecipeError
from data_engine.scenes.scene import training_seed
from data_engine.scenes.world import PRETRAINING, World
from data_engine.scenes.write import GENERATOR
from data_engine.storage import storage_errors
from specialists.florence2.scenes_quality import Quality
from specialists.florence2.scenes_training import FACTS, has_gpu, length_of, train
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
    an interruption; those of another training are refused. A stage with several processes gives each one thread. Where there is a GPU one process takes the
    steps of several, and all cores but one draw. Returns and raises what `train` does.
    """
    output = Path(output)
    training_seed(seed)
    with storage_errors(str(output)):  # before hours of work, not after them
        output.mkdir(parents=True, exist_ok=True)
    if minutes is not None:
        stages = tuple(stage for stage in stages if stage.share > 0)
    gpu = has_gpu()
    start: Path | None = None
    for number, stage in enumerate(stages):
        last = number + 1 == len(stages)
        place = output if last else output.with_name(f"{output.name}.stage-{number + 1}")
        processes = 1 if gpu else stage.processes
        length = 1.0 if minutes is None else minutes * stage.share
        steps = stage.steps if minutes is None else None
        if last or not _is_done(place, stage, length_of(length, steps), seed, world):
            quality = train(
                place,
                minutes=length,
                steps=steps,
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


def _is_done(place: Path, stage: Stage, length: str, seed: int, world: World) -> bool:
    """Whether a stage was trained before. Raises RecipeError where what lies there is of another training."""
    if not (place / FACTS).is_file():
        return False
    wanted = {
        "world": world.name,
        "seed": seed,
        "generator": GENERATOR,
        "length": length,
        "dimensions": json.loads(json.dumps(asdict(stage.dimensions))),
    }
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        found = {name: facts.get(name) for name in wanted}
    except (OSError, ValueError, AttributeError):
        found = {}
    if found != wanted:
        other = next(name for name in wanted if found.get(name) != wanted[name])
        raise RecipeError(
            f"{place} holds a stage of another training: its {other} is {found.get(other)!r}, not {wanted[other]!r}",
            "remove that folder to begin anew, or give another output",
        )
    return True


def _painters(gpu: bool, processes: int) -> int:
    """Processes that draw: beside several that learn there is no core left for one."""
    if gpu:
        return max(1, (os.cpu_count() or 1) - 1)
    return 1 if processes == 1 else 0
