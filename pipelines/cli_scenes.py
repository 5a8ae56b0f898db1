"""`fde scenes`: the embedded world with exact truth, its models, and what filters find of known errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_engine.errors import RecipeError
from pipelines.cli_shared import RecipeOption, chosen_recipe, chosen_runner, new_reporter, say

scenes_app = typer.Typer(
    help="The embedded world of scenes with exact truth.", no_args_is_help=True, rich_markup_mode=None
)
WorldOption = Annotated[str, typer.Option(help="pretraining or target.")]


@scenes_app.command("make")
def scenes_make(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    count: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels.")] = "320x240",
    workers: Annotated[int, typer.Option(min=1)] = 1,
    world: WorldOption = "pretraining",
) -> None:
    """Draw scenes and write their exact truth beside them."""
    from data_engine.scenes.world import find_world
    from data_engine.scenes.write import make_scenes

    make_scenes(folder, count, seed, _size(size), workers=workers, world=find_world(world))
    say(
        f"{folder}: {count:,} scenes of seed {seed}, {world} world; ingest them with: fde ingest {folder} DATASET"
    )


def _size(written: str) -> tuple[int, int]:
    """Width and height. Raises RecipeError."""
    width, cross, height = written.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        raise RecipeError(f"--size {written!r} is no size", "write width and height in pixels: 320x240")
    return int(width), int(height)


@scenes_app.command("train")
def scenes_train(
    model: Annotated[str, typer.Argument(help="detector, segmenter, scorer or florence2.")],
    output: Annotated[Path, typer.Argument(help="A .safetensors file (YOLO), or a folder (the others).")],
    minutes: Annotated[
        float | None, typer.Option(help="How long to train; by default as long as the shipped one.", min=0.05)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the scenes, and of the first weights.", min=0)] = 0,
    world: WorldOption = "pretraining",
    threads: Annotated[
        int | None,
        typer.Option(help="For PyTorch's arithmetic; by default as many as there are cores.", min=1),
    ] = None,
    evaluate_on: Annotated[
        int, typer.Option(help="Unseen scenes of each world to measure it on.", min=2)
    ] = 200,
) -> None:
    """Train one of the scenes' toy models from nothing, and print its quality on unseen scenes.

    As long as the shipped one: the first two stages of florence2 take over three hours on two cores, and its last one
    minutes on a GPU, but some eleven hours on two cores. With --minutes that last one is left out.
    """
    from data_engine.scenes.world import find_world
    from pipelines.scenes_training import train

    for line in train(model, output, minutes, seed, find_world(world), threads, evaluate_on):
        say(line)


@scenes_app.command("evaluate")
def scenes_evaluate(
    folder: Annotated[Path, typer.Argument(help="Where to put the scenes and the data sets.")],
    world: Annotated[
        list[str] | None, typer.Option(help="pretraining, target; may be given twice. Both by default.")
    ] = None,
    count: Annotated[int, typer.Option(help="Scenes of each world.", min=1)] = 500,
    seed: Annotated[
        int,
        typer.Option(help="Which scenes; models are trained on seeds from 1,000,000.", min=0, max=999_999),
    ] = 0,
    recipe: RecipeOption = "scenes",
    runner: Annotated[str, typer.Option(help="auto, ray, or inline (in this process).")] = "auto",
) -> None:
    """Measure every specialist of a recipe on unseen scenes, against their exact truth.

    Running it again goes on where it stopped.
    """
    from data_engine.scenes.world import WORLDS, find_world
    from pipelines.scenes_quality import compare

    worlds = [find_world(name) for name in world or WORLDS]
    compare(
        folder,
        chosen_recipe(recipe),
        worlds,
        count,
        seed,
        reporter=new_reporter(),
        say=say,
        runner=chosen_runner(runner),
    )


@scenes_app.command("faults")
def scenes_faults(
    folder: Annotated[Path, typer.Argument(help="Where to put the scenes and the data set.")],
    world: WorldOption = "pretraining",
    count: Annotated[int, typer.Option(help="How many scenes.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Which scenes.", min=0)] = 0,
    recipe: RecipeOption = "faults",
    runner: Annotated[str, typer.Option(help="auto, ray, or inline (in this process).")] = "auto",
) -> None:
    """Measure a recipe's filters on scenes with known errors: what each drops, and how much of it is wrong.

    Running it again goes on where it stopped.
    """
    from data_engine.scenes.world import find_world
    from pipelines.faults import faults

    faults(
        folder,
        chosen_recipe(recipe),
        find_world(world),
        count,
        seed,
        reporter=new_reporter(),
        say=say,
        runner=chosen_runner(runner),
    )
