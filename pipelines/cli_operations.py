"""Commands that tell how a data set's work goes, and try again what failed."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from pipelines.cli_shared import DatasetArgument, chosen_recipe, say


def status(
    dataset: DatasetArgument,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "-r", help="Also tell what of this recipe has not begun, and what is stale."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 10.0,
) -> None:
    """Tell how far DATASET is: per stage done, running, failed, left, images/s; its drivers and last runs.

    It is read from the data set alone, so any machine that can read it can tell.
    """
    from data_engine.dataset import Dataset
    from pipelines.status import lines, read_status

    opened = Dataset.open(dataset)
    chosen = None if recipe is None else chosen_recipe(recipe)
    while True:
        found = read_status(opened, chosen)
        if as_json:
            say(json.dumps(found.as_json()))
        else:
            for line in lines(found):
                say(line)
        if not watch:
            return
        time.sleep(every)
        if not as_json:
            say("")
