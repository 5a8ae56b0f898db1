"""The command line. Every command imports what it needs when it runs: `fde --help` loads no engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from data_engine.ingest.run import IngestSummary
    from data_engine.recipe import Recipe
    from data_engine.runner.progress import Reporter
    from pipelines.annotate import Runner

app = typer.Typer(
    name="fde",
    help="Turn a pile of images into a Florence-2-grade training set.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Show and check recipes.", no_args_is_help=True, rich_markup_mode=None)
scenes_app = typer.Typer(
    help="The embedded world of scenes with exact truth.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(recipe_app, name="recipe")
app.add_typer(scenes_app, name="scenes")

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
WorkersOption = Annotated[int | None, typer.Option(help="Threads that read and check images.", min=1)]


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
    runner: Annotated[str, typer.Option(help="auto, ray, or inline (in this process).")] = "auto",
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster; RAY_ADDRESS does the same.")
    ] = None,
    format_: FormatOption = None,
    embed: EmbedOption = False,
    shard_size: ShardSizeOption = 1000,
    workers: WorkersOption = None,
) -> None:
    """Run a recipe's specialists over DATASET, after ingesting SOURCE into it where one is given.

    Only what is missing is done: interrupt it at any time and run the same command again.
    """
    from data_engine.dataset import Dataset
    from data_engine.errors import RecipeError
    from pipelines.annotate import annotate as run

    if len(places) > 2:
        raise RecipeError(
            f"{len(places)} places given", "give one SOURCE and one DATASET, or a DATASET alone"
        )
    chosen = _recipe(recipe)
    url = places[-1]
    if len(places) == 2:
        _ingest(places[0], url, format_, embed, shard_size, workers)
    summary = run(Dataset.open(url), chosen, runner=_runner(runner), address=address, reporter=_reporter())
    for stage in summary.stages:
        done = f"{stage.units_done} shards done, {stage.units_skipped} already there"
        made = f"{stage.annotations:,} annotations" if stage.units_done else "nothing to do"
        _say(f"{stage.name}: {made}, {stage.failures:,} failures ({done})")
    _say_failures(url)
    _say(
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
    runner: Annotated[str, typer.Option(help="auto, ray, or inline (in this process).")] = "auto",
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster; RAY_ADDRESS does the same.")
    ] = None,
) -> None:
    """Judge every annotation by a recipe's filters, and write each verdict with its reason.

    Run it again after a change: what earlier filters dropped is kept, the changed one and those after it
    judge anew.
    """
    from data_engine.dataset import Dataset
    from data_engine.errors import RecipeError
    from pipelines.filter import filter_dataset
    from pipelines.funnel import funnel, samples

    if explain and sample is not None:
        raise RecipeError("a dry run writes no verdicts to explain", "leave out --explain or --sample")
    chosen = _recipe(recipe)
    opened = Dataset.open(dataset)
    summary = filter_dataset(
        opened, chosen, sample=sample, runner=_runner(runner), address=address, reporter=_reporter()
    )
    shards = summary.shards_done + summary.shards_skipped
    if sample is not None:
        _say(f"a sample of {shards} of {len(opened.shards)} shards; nothing is written")
    elif summary.shards_skipped:
        _say(f"{summary.shards_skipped} of {shards} shards were judged before")
    for line in funnel(chosen, summary):
        _say(line)
    if explain:
        _say("some of what was dropped (source, kind, text, and what was measured):")
        for line in samples(opened, chosen):
            _say(line)


@app.command()
def refine(
    dataset: DatasetArgument,
    recipe: RecipeOption = "refine-scenes",
    rounds: Annotated[
        int | None, typer.Option(help="How many at most; by default as the recipe says.", min=1)
    ] = None,
    runner: Annotated[str, typer.Option(help="auto, ray, or inline (in this process).")] = "auto",
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster; RAY_ADDRESS does the same.")
    ] = None,
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
        _recipe(recipe),
        rounds=rounds,
        runner=_runner(runner),
        address=address,
        reporter=_reporter(),
        say=_say,
    )
    for line in table(opened, len(summary.verdicts)):
        _say(line)
    _say(
        f"the labels to use are what is kept of merged-{summary.used} in round {summary.used}"
        if summary.used
        else "the labels to use are those of round 0: no round was accepted"
    )


@app.command()
def sql(
    dataset: DatasetArgument,
    query: Annotated[str, typer.Argument(help="One SELECT. Views: images, texts, regions, triplets, ...")],
    format_: Annotated[
        str, typer.Option("--format", "-f", help="table, csv, json (one object per line), parquet.")
    ] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of the terminal.")
    ] = None,
) -> None:
    """Ask the data set in SQL (DuckDB). Read-only; nothing outside the data set can be reached."""
    from rich.console import Console

    from data_engine.dataset import Dataset
    from data_engine.errors import QueryError
    from data_engine.query import connect, run
    from data_engine.query_output import print_table, write_rows
    from data_engine.storage import storage_errors

    if format_ not in ("table", "csv", "json", "parquet"):
        raise QueryError(f"--format {format_!r} is none of table, csv, json, parquet", "choose one of them")
    if format_ == "parquet" and output is None and sys.stdout.isatty():
        raise QueryError("Parquet is no text", "name a file with --output")
    with connect(Dataset.open(dataset)) as connection:
        rows = run(connection, query)
        if format_ == "table":
            print_table(rows, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
        elif output is None:
            write_rows(rows, sys.stdout.buffer, format_)  # type: ignore[arg-type]
        else:
            with storage_errors(str(output)), output.open("wb") as stream:
                write_rows(rows, stream, format_)  # type: ignore[arg-type]


@app.command()
def view(
    dataset: DatasetArgument,
    host: Annotated[
        str, typer.Option(help="Where to listen; any but this machine alone needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65_535)] = 0,
    token: Annotated[
        str | None,
        typer.Option(help="Asked of every reader; made up where --host needs one.", envvar="FDE_TOKEN"),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse marks.")] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Look at DATASET in the browser: search, each image's story, marks of good and bad."""
    from data_engine.dataset import Dataset
    from pipelines.viewer.serve import serve

    serve(Dataset.open(dataset), host, port, token, read_only, not no_browser, _say)


@app.command()
def qa(
    dataset: DatasetArgument,
    round_: Annotated[
        int | None,
        typer.Option("--round", help="Look at what this round of verdicts kept; else the last.", min=0),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Look at all statements, also dropped ones.")
    ] = False,
    source: Annotated[
        list[str] | None, typer.Option(help="Only these sources; may be given several times.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="Another data set, to be held against.")] = None,
    against_round: Annotated[
        int | None, typer.Option(help="Another round, of this data set or of the one against.", min=0)
    ] = None,
    truth: Annotated[
        str | None, typer.Option(help="A source of people's labels (human): AP, recall, CIDEr against it.")
    ] = None,
    sql_: Annotated[
        list[Path] | None, typer.Option("--sql", help="A folder of your own checks and reports, as .sql.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Shards that this recipe would make anew are stale.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="The most memory DuckDB takes, e.g. 4GB.")] = None,
    format_: Annotated[str, typer.Option("--format", "-f", help="text, or json: all of it.")] = "text",
) -> None:
    """Check DATASET, and print its figures beside those of FLD-5B. Ends with 7 when a check finds something.

    Checks and reports are SQL files (docs/qa.md).
    """
    from rich.console import Console

    from data_engine.dataset import Dataset
    from data_engine.errors import QueryError
    from data_engine.qa.scope import find_scope
    from pipelines.qa import as_json
    from pipelines.qa import qa as run
    from pipelines.qa_text import print_findings

    if format_ not in ("text", "json"):
        raise QueryError(f"--format {format_!r} is neither text nor json", "choose one of them")
    if everything and round_ is not None:
        raise QueryError("--all and --round exclude each other", "leave one of them out")
    opened, sources = Dataset.open(dataset), tuple(source or ())
    other = None
    if against is not None or against_round is not None:
        place = opened if against is None else Dataset.open(against)
        other = (
            place,
            find_scope(place, against_round, sources, everything=everything and against_round is None),
        )
    found = run(
        opened,
        find_scope(opened, round_, sources, everything=everything),
        folders=sql_ or [],
        against=other,
        truth=truth,
        recipe=None if recipe is None else _recipe(recipe),
        memory_limit=memory,
    )
    if format_ == "json":
        _say(as_json(found))
    else:
        print_findings(found, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
    found.raise_if_failed()


@app.command()
def report(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The HTML file to write; one that is there is replaced.")
    ] = Path("report.html"),
    images: Annotated[int, typer.Option(help="How many images the gallery shows.", min=0, max=400)] = 24,
    round_: Annotated[
        int | None,
        typer.Option("--round", help="Look at what this round of verdicts kept; else the last.", min=0),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Look at all statements, also dropped ones.")
    ] = False,
    source: Annotated[
        list[str] | None, typer.Option(help="Only these sources; may be given several times.")
    ] = None,
    truth: Annotated[
        str | None, typer.Option(help="A source of people's labels (human): AP, recall, CIDEr against it.")
    ] = None,
    sql_: Annotated[
        list[Path] | None, typer.Option("--sql", help="A folder of your own checks and reports, as .sql.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="The most memory DuckDB takes, e.g. 4GB.")] = None,
) -> None:
    """Write what `fde qa` finds, with plots and a gallery of images, as one HTML file that needs nothing else."""
    from data_engine.dataset import Dataset
    from data_engine.errors import QueryError
    from data_engine.qa.scope import find_scope
    from pipelines.report.write import write_report

    if everything and round_ is not None:
        raise QueryError("--all and --round exclude each other", "leave one of them out")
    opened = Dataset.open(dataset)
    scope = find_scope(opened, round_, tuple(source or ()), everything=everything)
    found = write_report(
        opened, output, scope, images=images, folders=sql_ or [], truth=truth, memory_limit=memory
    )
    size = output.stat().st_size / 1e6
    failed = ", ".join(check.query.name for check in found.failed)
    _say(f"{output}: {size:.1f} MB; {f'checks that failed: {failed}' if failed else 'all checks passed'}")


@app.command("eval")
def eval_(
    dataset: DatasetArgument,
    predictions: Annotated[
        str, typer.Option(help="The source to judge, e.g. a detector's name.")
    ] = "detector",
    truth: Annotated[
        str, typer.Option(help="The source to hold it against: human, or truth for scenes.")
    ] = "human",
) -> None:
    """COCO average precision of one source's boxes against another's."""
    from data_engine.dataset import Dataset
    from data_engine.quality.detection import average_precision

    quality = average_precision(Dataset.open(dataset), predictions, truth)
    _say(f"{predictions} against {truth}, {quality.images:,} images: "
         f"AP {quality.ap:.4f}, AP50 {quality.ap50:.4f}, AP75 {quality.ap75:.4f}")  # fmt: skip


@app.command()
def draw(
    dataset: DatasetArgument,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT.png")],
    source: Annotated[
        list[str] | None, typer.Option(help="Only these sources; may be given several times.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many images, from the first on.", min=1, max=400)] = 6,
    kept: Annotated[bool, typer.Option("--kept", help="Leave out what the filters dropped.")] = False,
) -> None:
    """Draw the first images with what was said about them, as one picture."""
    from data_engine.dataset import Dataset
    from pipelines.draw import draw_dataset

    shown = draw_dataset(Dataset.open(dataset), output, sources=source, images=images, kept=kept)
    _say(f"{output}: {shown} images")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to put the scenes and the data set.")] = Path("demo"),
    count: Annotated[int, typer.Option(help="How many scenes.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Which scenes; the shipped models saw other seeds.")] = 2026,
) -> None:
    """The main job on the embedded world, offline: scenes in, annotations out, judged against the truth."""
    from pipelines.demo import run_demo

    run_demo(folder, count, seed, reporter=_reporter(), say=_say)


@recipe_app.command("list")
def recipe_list() -> None:
    """The recipes that are built in."""
    from pipelines.recipe_files import builtin_recipes, find_recipe

    for name in builtin_recipes():
        _say(f"{name}: {find_recipe(name).description}")


@recipe_app.command("show")
def recipe_show(recipe: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Print a recipe as it is written; a copy of it is where one's own starts."""
    from pipelines.recipe_files import recipe_text

    print(recipe_text(recipe), end="")  # noqa: T201 - its text is the command's output


@recipe_app.command("check")
def recipe_check(recipe: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Check a recipe without running anything: keys, references, arguments."""
    chosen = _recipe(recipe)
    order = " -> ".join(chosen.ordered()) or "none"
    _say(f"{chosen.name} is sound; specialists: {order}; filters: {', '.join(chosen.filters) or 'none'}")


WorldOption = Annotated[str, typer.Option(help="pretraining or target.")]


@scenes_app.command("make")
def scenes_make(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    count: Annotated[int, typer.Option(min=1)] = 200,
    seed: Annotated[int, typer.Option()] = 0,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    world: WorldOption = "pretraining",
) -> None:
    """Draw scenes and write their exact truth beside them."""
    from data_engine.scenes.world import find_world
    from data_engine.scenes.write import make_scenes

    make_scenes(folder, count, seed, workers=workers, world=find_world(world))
    _say(
        f"{folder}: {count:,} scenes of seed {seed}, {world} world; ingest them with: fde ingest {folder} DATASET"
    )


@scenes_app.command("train")
def scenes_train(
    model: Annotated[str, typer.Argument(help="detector, segmenter, scorer or florence2.")],
    output: Annotated[Path, typer.Argument(help="A .safetensors file (YOLO), or a folder (the others).")],
    minutes: Annotated[
        float | None, typer.Option(help="How long to train; by default as long as the shipped one.", min=0.05)
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    world: WorldOption = "pretraining",
    threads: Annotated[
        int | None,
        typer.Option(help="For PyTorch's arithmetic; by default as many as there are cores.", min=1),
    ] = None,
) -> None:
    """Train one of the scenes' toy models from nothing, and print its quality on unseen scenes."""
    from data_engine.scenes.world import find_world
    from pipelines.scenes_training import train

    for line in train(model, output, minutes, seed, find_world(world), threads):
        _say(line)


@scenes_app.command("evaluate")
def scenes_evaluate(
    folder: Annotated[Path, typer.Argument(help="Where to put the scenes and the data sets.")],
    world: Annotated[
        list[str] | None, typer.Option(help="pretraining, target; may be given twice. Both by default.")
    ] = None,
    count: Annotated[int, typer.Option(help="Scenes of each world.", min=1)] = 500,
    seed: Annotated[int, typer.Option(help="Which scenes; models are trained on seeds from 1,000,000.")] = 0,
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
        folder, _recipe(recipe), worlds, count, seed, reporter=_reporter(), say=_say, runner=_runner(runner)
    )


@scenes_app.command("faults")
def scenes_faults(
    folder: Annotated[Path, typer.Argument(help="Where to put the scenes and the data set.")],
    world: WorldOption = "pretraining",
    count: Annotated[int, typer.Option(help="How many scenes.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Which scenes.")] = 0,
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
        _recipe(recipe),
        find_world(world),
        count,
        seed,
        reporter=_reporter(),
        say=_say,
        runner=_runner(runner),
    )


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        from data_engine import __version__

        _say(f"fde {__version__}")
        raise typer.Exit


def _runner(name: str) -> Runner:
    from data_engine.errors import RecipeError

    match name:
        case "auto" | "ray" | "inline":
            return name
    raise RecipeError(f"--runner {name!r} is none of auto, ray, inline", "choose one of them")


def _recipe(name: str) -> Recipe:
    from pipelines.recipe_files import find_recipe

    return find_recipe(name)


def _ingest(
    source: str, url: str, format_: str | None, embed: bool, shard_size: int, workers: int | None
) -> IngestSummary:
    import os

    from data_engine.ingest.run import ingest as run

    reporter = _reporter()
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
        _say(f"{url} holds {source} already: {summary.images:,} images")
        return summary
    names = f" under {summary.keys:,} names" if summary.keys != summary.images else ""
    labels = "".join(f", {rows:,} labels by {name}" for name, rows in summary.labels.items())
    _say(
        f"ingested {summary.images:,} images{names} in {summary.shards} shards{labels}, {summary.seconds:.1f} s"
    )
    if summary.left_out:
        _say(f"left out: {', '.join(f'{count:,} {what}' for what, count in summary.left_out.items())}")
    if summary.ignored:
        _say(f"ignored {summary.ignored:,} files that are no images")
    if summary.failures:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(summary.failures.items()))
        _say(
            f"could not use {sum(summary.failures.values()):,}: {reasons}; see: fde sql {url} 'FROM failures'"
        )
    return summary


def _say_failures(url: str) -> None:
    from data_engine.dataset import Dataset
    from data_engine.query import sql as ask

    rows = ask(
        Dataset.open(url),
        "SELECT count(*) AS n, count(DISTINCT coalesce(image_id, key)) AS images FROM failures",
    )
    n, images = rows["n"][0].as_py(), rows["images"][0].as_py()
    if n:
        _say(f"{n:,} failures on {images:,} images; see: fde sql {url} 'FROM failures'")


def _reporter() -> Reporter:
    from data_engine.runner.progress import Reporter

    return Reporter()


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command line's own output


def _end(line: str, hint: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"fde: {line}", file=sys.stderr)  # noqa: T201
    if hint:
        print(f"     {hint}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def main() -> None:
    """Entry point of `fde`. Errors are one line and a hint; exit codes stand in data_engine.errors."""
    import logging

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("data_engine").setLevel(logging.INFO)
    try:
        app()
    except SystemExit as leave:
        if leave.code == 130:
            _end("interrupted", "finished shards are kept: run the same command again to go on", 130)
        raise
    except Exception as error:
        from data_engine.errors import FdeError

        if not isinstance(error, FdeError):
            raise
        _end(error.message, error.hint, error.exit_code)
