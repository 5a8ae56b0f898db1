"""What several commands of the command line share: arguments, and how they speak."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from data_engine.recipe import Recipe
    from data_engine.runner.progress import Reporter
    from pipelines.annotate import Runner

SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A folder, tar, Parquet or JSON file, or a URL of one.")
]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="The data set's folder or URL.")]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="A recipe's name or its YAML file.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", "-f", help="The source's format; found out by itself when left out.")
]
EmbedOption = Annotated[bool, typer.Option("--embed", help="Copy the images' bytes into the data set.")]
ShardSizeOption = Annotated[int, typer.Option(help="Images per shard.", min=1)]
RunnerOption = Annotated[str, typer.Option(help="auto, ray, or inline (in this process).")]
AddressOption = Annotated[
    str | None, typer.Option(help="An existing Ray cluster; RAY_ADDRESS does the same.")
]
WorkersOption = Annotated[int | None, typer.Option(help="Threads that read and check images.", min=1)]


def chosen_runner(name: str) -> Runner:
    from data_engine.errors import RecipeError

    match name:
        case "auto" | "ray" | "inline":
            return name
    raise RecipeError(f"--runner {name!r} is none of auto, ray, inline", "choose one of them")


def chosen_recipe(name: str) -> Recipe:
    from pipelines.recipe_files import find_recipe

    return find_recipe(name)


def new_reporter() -> Reporter:
    from data_engine.runner.progress import Reporter

    return Reporter()


def say(line: str) -> None:
    from data_engine.terminal_text import plain_lines

    print(plain_lines(line), flush=True)  # noqa: T201 - the command line's own output
