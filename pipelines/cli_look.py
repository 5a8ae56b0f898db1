"""Commands that look at a data set and leave it as it is: queries, checks, pages and pictures; marks aside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_shared import DatasetArgument, chosen_recipe, say

RoundOption = Annotated[
    int | None,
    typer.Option("--round", help="Look at what this round of verdicts kept; else the last.", min=0),
]
AllOption = Annotated[bool, typer.Option("--all", help="Look at all statements, also dropped ones.")]
SourcesOption = Annotated[
    list[str] | None, typer.Option(help="Only these sources; may be given several times.")
]
TruthOption = Annotated[
    str | None, typer.Option(help="A source of people's labels (human): AP, recall, CIDEr against it.")
]


def sql(
    dataset: DatasetArgument,
    query: Annotated[str, typer.Argument(help="One SELECT. Views: images, texts, regions, triplets, ...")],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="table, csv, json (one object per line) or parquet, whatever the name of --output; left out: by that name, else table.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file instead of the terminal: .csv, .json, .jsonl, .parquet; replaced whole.",
        ),
    ] = None,
) -> None:
    """Ask the data set in SQL (DuckDB). Read-only; nothing outside the data set can be reached."""
    from rich.console import Console

    from data_engine.dataset import Dataset
    from data_engine.errors import QueryError
    from data_engine.output_file import make_place, written
    from data_engine.query import connect, run
    from data_engine.query_output import format_of_output, print_table, write_rows

    chosen = format_of_output(format_, output)
    if chosen == "parquet" and output is None and sys.stdout.isatty():
        raise QueryError("Parquet is no text", "name a file with --output")
    opened = Dataset.open(dataset)
    if output is not None:
        make_place(output)
    with connect(opened) as connection:
        rows = run(connection, query)
        if chosen == "table":
            print_table(rows, Console(highlight=False), whole=not sys.stdout.isatty())
        elif output is None:
            write_rows(rows, sys.stdout.buffer, chosen)
        else:
            with written(output) as stream:
                write_rows(rows, stream, chosen)


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

    serve(Dataset.open(dataset), host, port, token, read_only, not no_browser, say)


def qa(
    dataset: DatasetArgument,
    round_: RoundOption = None,
    everything: AllOption = False,
    source: SourcesOption = None,
    against: Annotated[str | None, typer.Option(help="Another data set, to be held against.")] = None,
    against_round: Annotated[
        int | None, typer.Option(help="Another round, of this data set or of the one against.", min=0)
    ] = None,
    truth: TruthOption = None,
    sql_: Annotated[
        list[Path] | None, typer.Option("--sql", help="A folder of your own checks and reports, as .sql.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Shards that this recipe would make anew are stale.")
    ] = None,
    checksums: Annotated[
        bool,
        typer.Option(
            "--checksums", help="Read every file to its end, and hold its pages against their checksums."
        ),
    ] = False,
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
        recipe=None if recipe is None else chosen_recipe(recipe),
        memory_limit=memory,
        checksums=checksums,
    )
    if format_ == "json":
        say(as_json(found))
    else:
        print_findings(found, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
    found.raise_if_failed()


def report(
    dataset: DatasetArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The HTML file to write; one that is there is replaced.")
    ] = Path("report.html"),
    images: Annotated[int, typer.Option(help="How many images the gallery shows.", min=0, max=400)] = 24,
    round_: RoundOption = None,
    everything: AllOption = False,
    source: SourcesOption = None,
    truth: TruthOption = None,
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
    say(f"{output}: {size:.1f} MB; {f'checks that failed: {failed}' if failed else 'all checks passed'}")


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
    say(f"{predictions} against {truth}, {quality.images:,} images: "
         f"AP {quality.ap:.4f}, AP50 {quality.ap50:.4f}, AP75 {quality.ap75:.4f}")  # fmt: skip


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
    from data_engine.wording import counted
    from pipelines.draw import draw_dataset

    shown = draw_dataset(Dataset.open(dataset), output, sources=source, images=images, kept=kept)
    say(f"{output}: {counted(shown, 'image')}")
