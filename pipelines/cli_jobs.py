"""Commands that send work to a Ray cluster and look after it there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli_shared import say

if TYPE_CHECKING:
    from pipelines.jobs import Job

AddressOption = Annotated[
    str | None,
    typer.Option(help="The cluster's job server, http://HEAD:8265; RAY_API_SERVER_ADDRESS does the same."),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as fde jobs list shows it.")]

jobs_app = typer.Typer(
    help="List, follow and stop jobs on a Ray cluster.", no_args_is_help=True, rich_markup_mode=None
)


def submit(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND ...", help="annotate, filter, ... with its arguments.")
    ],
    address: AddressOption = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="Send this folder, instead of the recipe and what it refers to.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    runtime_env: Annotated[
        Path | None,
        typer.Option(help="Ray's runtime environment, as a YAML or JSON file: pip, env_vars, ..."),
    ] = None,
    wait: Annotated[
        bool, typer.Option(help="Show its output until it ends, and end with its exit code.")
    ] = True,
) -> None:
    """Run a command as a job of a Ray cluster: fde submit -- annotate DATASET --recipe my.yaml

    The recipe and the code beside it are sent along. Ctrl-C leaves the job running.
    """
    from pipelines import jobs

    client = jobs.connect(address)
    job = jobs.submit(client, command, working_dir=working_dir, runtime_env=runtime_env, note=_note)
    say(f"submitted {job}; follow it: fde jobs logs -f {job}; stop it: fde jobs stop {job}")
    if wait:
        _follow(client, job)


@jobs_app.command("list")
def list_(address: AddressOption = None) -> None:
    """The cluster's jobs, the latest first."""
    from data_engine.query_output import printable
    from pipelines import jobs

    for job in jobs.jobs(jobs.connect(address)):
        say(printable(_line(job)))


@jobs_app.command()
def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until the job ends; then end with its exit code.")
    ] = False,
    address: AddressOption = None,
) -> None:
    """What a job has printed."""
    from pipelines import jobs

    client = jobs.connect(address)
    if follow:
        _follow(client, job)
    else:
        _write(jobs.logs(client, job))


@jobs_app.command()
def stop(job: JobArgument, address: AddressOption = None) -> None:
    """Interrupt a job, as Ctrl-C would: finished shards are kept, and the same command goes on later."""
    from pipelines import jobs

    stopped = jobs.stop(jobs.connect(address), job)
    say(f"{job} is being stopped" if stopped else f"{job} had ended already")


def _follow(client: object, job: str) -> None:
    from pipelines import jobs

    try:
        ended = jobs.follow(client, job, _write)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        _note(f"the job goes on; follow it: fde jobs logs -f {job}; stop it: fde jobs stop {job}")
        raise typer.Exit(130) from None
    code = jobs.exit_code(ended)
    _note(f"{job} ended: {ended.status.lower()}, exit code {code}")
    raise typer.Exit(code)


def _line(job: Job) -> str:
    from data_engine.runner.progress import clock

    code = "" if job.exit_code is None else f" (exit code {job.exit_code})"
    when = "" if job.started is None else f"{job.started:%Y-%m-%d %H:%M} UTC"
    return f"{job.id}  {job.status.lower()}{code}  {when}  {clock(job.seconds or 0)}  {job.command}"


def _write(text: str) -> None:
    """A job's output as it is, but for what could command the terminal."""
    sys.stdout.write("".join(c if c.isprintable() or c in "\n\t" else "?" for c in text if c != "\r"))
    sys.stdout.flush()


def _note(line: str) -> None:
    print(f"fde: {line}", file=sys.stderr, flush=True)  # noqa: T201 - beside the job's output, not in it
