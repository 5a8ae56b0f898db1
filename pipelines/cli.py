"""The command line. Every command imports what it needs when it runs: `fde --help` loads no engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipelines import cli_jobs, cli_look, cli_operations
from pipelines.cli_scenes import scenes_app
from pipelines.cli_shared import (
    AddressOption,
    DatasetArgument,
    EmbedOption,
    FormatOption,
    RecipeOption,
    RunnerOption,
    ShardSizeOption,
    SourceArgument,
    WorkersOption,
    chosen_recipe,
    chosen_runner,
    new_reporter,
    say,
)

if TYPE_CHECKING:
    from data_engine.ingest.run import IngestSummary

app = typer.Typer(
    name="fde",
    help="Turn a pile of images into a Florence-2-grade training set.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Show and check recipes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(recipe_app, name="recipe")
app.add_typer(cli_jobs.jobs_app, name="jobs")
app.add_typer(scenes_app, name="scenes")


@app.command()
def ingest(
    source: SourceArgument,
    dataset: DatasetArgument,
    format_: FormatOption = None,
    embed: EmbedOption = False,
    shard_size: ShardSizeOption = 1000,
    workers: WorkersOption = None,
) -> None:
    """Index the images of SOURCE, and its labels, as the data set DATASET."""
    _ingest(source, dataset, format_, embed, shard_size, workers)


@app.command()
def annotate(
    places: Annotated[
        list[str],
        typer.Argument(metavar="[SOURCE] DATASET", help="What to ingest first, if anything; the data set."),
    ],
    recipe: RecipeOption = "scenes",
    runner: RunnerOption = "auto",
    address: AddressOption = None,
    format_: FormatOption = None,
    embed: EmbedOption = False,
    shard_size: ShardSizeOption = 1000,
    workers: WorkersOption = None,
) -> None:
    """Run a recipe's specialists over DATASET, after ingesting SOURCE into it where one is given.

    Only what is missing is done: interrupt it at any time and run the same command again.
    """
    import logging

    from data_engine.dataset import Dataset
    from data_engine.errors import RecipeError
    from data_engine.wording import counted
    from pipelines.annotate import annotate as run

    if len(places) > 2:
        raise RecipeError(
            f"{len(places)} places given", "give one SOURCE and one DATASET, or a DATASET alone"
        )
    chosen = chosen_recipe(recipe)
    url = places[-1]
    if len(places) == 2:
        _ingest(places[0], url, format_, embed, shard_size, workers)
    opened = Dataset.open(url)
    if recipe == "scenes" and opened.info.source_format != "scenes":
        logging.getLogger("data_engine").warning(
            "the recipe scenes has toy models, which know drawn scenes alone: for other images name one with --recipe "
            "(fde recipe list)"
        )
    summary = run(opened, chosen, runner=chosen_runner(runner), address=address, reporter=new_reporter())
    for stage in summary.stages:
        done = f"{counted(stage.units_done, 'shard')} done, {stage.units_skipped:,} already there"
        made = counted(stage.annotations, "annotation") if stage.units_done else "nothing to do"
        say(f"{stage.name}: {made}, {counted(stage.failures, 'failure')} ({done})")
    _say_failures(url)
    say(
        f"annotated {url} in {summary.seconds:.1f} s ({summary.runner}); look with: fde sql {url} 'FROM regions'"
    )


@app.command("filter")
def filter_(
    dataset: DatasetArgument,
    recipe: RecipeOption = "scenes",
    explain: Annotated[bool, typer.Option(help="Also show some of what each filter dropped.")] = False,
    sample: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="A dry run on this share of the shards; nothing is written."),
    ] = None,
    runner: RunnerOption = "auto",
    address: AddressOption = None,
) -> None:
    """Judge every annotation by a recipe's filters, and write each verdict with its reason.

    Run it again after a change: what earlier filters dropped is kept, the changed one and those after it
    judge anew.
    """
    from data_engine.dataset import Dataset
    from data_engine.errors import RecipeError
    from data_engine.wording import counted
    from pipelines.filter import filter_dataset
    from pipelines.funnel import funnel, samples

    if explain and sample is not None:
        raise RecipeError("a dry run writes no verdicts to explain", "leave out --explain or --sample")
    chosen = chosen_recipe(recipe)
    opened = Dataset.open(dataset)
    summary = filter_dataset(
        opened, chosen, sample=sample, runner=chosen_runner(runner), address=address, reporter=new_reporter()
    )
    shards = summary.shards_done + summary.shards_skipped
    if sample is not None:
        say(f"a sample of {shards:,} of {counted(len(opened.shards), 'shard')}; nothing is written")
    elif summary.shards_skipped:
        say(f"judged before: {summary.shards_skipped:,} of {counted(shards, 'shard')}")
    for line in funnel(chosen, summary):
        say(line)
    if explain:
        say("some of what was dropped (source, kind, text, and what was measured):")
        for line in samples(opened, chosen):
            say(line)


@app.command()
def refine(
    dataset: DatasetArgument,
    recipe: RecipeOption = "refine-scenes",
    rounds: Annotated[
        int | None, typer.Option(help="How many at most; by default as the recipe says.", min=1)
    ] = None,
    runner: RunnerOption = "auto",
    address: AddressOption = None,
) -> None:
    """Train a student on what is kept, let it label again, merge and filter: round after round while it gains.

    Annotates and filters DATASET first where that is not done. Interrupt it at any time and run the same
    command again. Each round's measures: fde sql DATASET 'FROM rounds'.
    """
    from data_engine.dataset import Dataset
    from pipelines.refine import refine as run
    from pipelines.refine import table

    opened = Dataset.open(dataset)
    summary = run(
        opened,
        chosen_recipe(recipe),
        rounds=rounds,
        runner=chosen_runner(runner),
        address=address,
        reporter=new_reporter(),
        say=say,
    )
    for line in table(opened, len(summary.verdicts)):
        say(line)
    say(
        f"the labels to use are what is kept of merged-{summary.used} in round {summary.used}"
        if summary.used
        else "the labels to use are those of round 0: no round was accepted"
    )


app.command()(cli_look.sql)
app.command()(cli_look.view)
app.command()(cli_look.qa)
app.command()(cli_look.report)
app.command("eval")(cli_look.eval_)
app.command()(cli_look.draw)
app.command()(cli_operations.status)
app.command()(cli_operations.retry)
app.command()(cli_jobs.submit)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the scenes and the data set.")] = Path("demo"),
    count: Annotated[int, typer.Option(help="How many scenes.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Which scenes; the shipped models saw other seeds.")] = 2026,
) -> None:
    """The main job on the embedded world, offline: scenes in, annotations out, judged against the truth."""
    from pipelines.demo import run_demo

    run_demo(folder, count, seed, reporter=new_reporter(), say=say)


@recipe_app.command("list")
def recipe_list() -> None:
    """The recipes that are built in."""
    from pipelines.recipe_files import builtin_recipes, find_recipe

    for name in builtin_recipes():
        say(f"{name}: {find_recipe(name).description}")


@recipe_app.command("show")
def recipe_show(recipe: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Print a recipe as it is written; a copy of it is where one's own starts."""
    from data_engine.terminal_text import plain_lines
    from pipelines.recipe_files import recipe_text

    text = recipe_text(recipe)
    # A person who reads a recipe before running it must see all of it; a copy is as it was.
    print(plain_lines(text) if sys.stdout.isatty() else text, end="")  # noqa: T201 - its text is the command's output


@recipe_app.command("check")
def recipe_check(recipe: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Check a recipe without running anything: keys, references, arguments."""
    chosen = chosen_recipe(recipe)
    order = " -> ".join(chosen.ordered()) or "none"
    say(f"{chosen.name} is sound; specialists: {order}; filters: {', '.join(chosen.filters) or 'none'}")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        from data_engine import __version__

        say(f"fde {__version__}")
        raise typer.Exit


def _ingest(
    source: str, url: str, format_: str | None, embed: bool, shard_size: int, workers: int | None
) -> IngestSummary:
    import os

    from data_engine.dataset import Dataset
    from data_engine.ingest.run import ingest as run
    from data_engine.run_record import Run, record_ingest
    from data_engine.wording import counted

    invocation = Run.begin("ingest", None, "threads")
    reporter = new_reporter()
    with reporter.counted("ingest") as count:
        summary = run(
            source,
            url,
            format=format_,
            embed=embed,
            shard_size=shard_size,
            workers=workers or os.cpu_count() or 1,
            progress=count,
        )
    if summary.already:
        say(f"{url} holds {source} already: {counted(summary.images, 'image')}")
        return summary
    record_ingest(Dataset.open(url), invocation, summary.seconds, sum(summary.failures.values()))
    names = f" under {counted(summary.keys, 'name')}" if summary.keys != summary.images else ""
    labels = "".join(f", {counted(rows, 'label')} by {name}" for name, rows in summary.labels.items())
    say(
        f"ingested {counted(summary.images, 'image')}{names} in {counted(summary.shards, 'shard')}{labels}, "
        f"{summary.seconds:.1f} s"
    )
    if summary.left_out:
        say(f"left out: {', '.join(f'{count:,} {what}' for what, count in summary.left_out.items())}")
    if summary.ignored:
        say(f"ignored {counted(summary.ignored, 'file that is no image', 'files that are no images')}")
    if summary.failures:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(summary.failures.items()))
        say(
            f"could not use {sum(summary.failures.values()):,}: {reasons}; see: fde sql {url} 'FROM failures'"
        )
    return summary


def _say_failures(url: str) -> None:
    from data_engine.dataset import Dataset
    from data_engine.query import sql as ask
    from data_engine.wording import counted

    rows = ask(
        Dataset.open(url),
        "SELECT count(*) AS n, count(DISTINCT coalesce(image_id, key)) AS images FROM failures",
    )
    n, images = rows["n"][0].as_py(), rows["images"][0].as_py()
    if n:
        say(f"{counted(n, 'failure')} on {counted(images, 'image')}; see: fde sql {url} 'FROM failures'")


def _end(line: str, hint: str, code: int) -> NoReturn:
    import logging

    from data_engine.blanked import blanked
    from data_engine.logs import about, as_json
    from data_engine.terminal_text import plain

    sys.stdout.flush()
    # Ctrl-C within an exec of a text, as dataclasses have one, makes CPython note that it was not handled, and `python -m`
    # then ends by SIGINT in place of the exit code (bpo-1054041). The next exec of a text takes the note back.
    exec("")  # noqa: S102
    if as_json():
        logging.getLogger("data_engine").error(line, extra=about(hint=hint, exit_code=code))
        sys.exit(code)
    print(f"fde: {plain(blanked(line))}", file=sys.stderr)  # noqa: T201
    if hint:
        print(f"     {plain(blanked(hint))}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of `fde`. Errors are one line and a hint; exit codes stand in data_engine.errors."""
    import signal

    from data_engine.logs import set_up

    set_up()
    # What stops a job (Slurm, Kubernetes, `fde jobs stop`) asks with this first: it ends as by Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except SystemExit as leave:
        if leave.code in (130, int(signal.SIGTERM)):  # the latter is how Ray ends a driver that is asked to
            _end("interrupted", "finished shards are kept: run the same command again to go on", 130)
        raise
    except Exception as error:
        from data_engine.errors import FdeError

        if not isinstance(error, FdeError):
            raise
        _end(error.message, error.hint, error.exit_code)
