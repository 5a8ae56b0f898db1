"""Commands that tell how a data set's work goes, and try again what failed."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from pipelines.cli_shared import (
    AddressOption,
    DatasetArgument,
    RecipeOption,
    RunnerOption,
    chosen_recipe,
    chosen_runner,
    new_reporter,
    say,
)


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


def retry(
    dataset: DatasetArgument,
    recipe: RecipeOption = "scenes",
    failed: Annotated[
        bool, typer.Option("--failed", help="Images that failed: what is retried in any case.")
    ] = True,
    reason: Annotated[
        list[str] | None,
        typer.Option(help="Only this reason of failures (docs/failures.md); may be given several times."),
    ] = None,
    specialist: Annotated[
        list[str] | None, typer.Option(help="Only this specialist's failures; may be given several times.")
    ] = None,
    runner: RunnerOption = "auto",
    address: AddressOption = None,
) -> None:
    """Try the images of DATASET again that a specialist could not use, where another attempt may pass.

    Their shards are made again, and those of specialists that need them; nothing is removed before. Shards that
    failed as a whole need no retry: fde annotate does them.
    """
    from data_engine.dataset import Dataset
    from data_engine.wording import counted
    from pipelines.retry import MAY_PASS
    from pipelines.retry import retry as run

    summary = run(
        Dataset.open(dataset),
        chosen_recipe(recipe),
        reasons=tuple(reason or MAY_PASS),
        specialists=tuple(specialist or ()),
        runner=chosen_runner(runner),
        address=address,
        reporter=new_reporter(),
    )
    if summary.run is None:
        say("nothing to retry: no image failed for such a reason")
        return
    for (stage, why), count in sorted(summary.before.items()):
        left = summary.after.get((stage, why), 0)
        say(f"{stage}: {counted(count, 'image')} failed with {why}, {left:,} do so still")
    say(
        f"made again: {counted(summary.shards, 'shard')}; where there are verdicts, filter again: fde filter {dataset}"
    )
