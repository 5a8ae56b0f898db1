"""How far a data set is, from the data set alone: listings, live files and records of runs.

No driver is asked and none has to be reachable: any machine that can read the data set can tell. Shards are counted
by listing their folders, one request per thousand on an object store, and none of them is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, StorageError
from data_engine.live import Driver, drivers
from data_engine.qa.scope import rounds
from data_engine.query_output import printable
from data_engine.recipe import Recipe
from data_engine.runner.plan import Plan, make_plan
from data_engine.runner.progress import clock
from data_engine.schema import REVIEWER
from data_engine.shards import read_table
from data_engine.students import with_students
from data_engine.wording import counted

_RUNS = 20
"""Records read, the latest ones: enough for what is told of them, however many there are."""

_RUNS_SHOWN = 5
_REASONS_SHOWN = 5
_REASON = 160


@dataclass(frozen=True)
class StageStatus:
    """One stage's shards: done, in work, given up, and left to do; `done + failed + left == units`.

    Where drivers work on it, `done`, `failed` and `left` are as they tell it, for they know which shards are stale;
    else `done` counts the files that are there, of the recipe's fingerprint where there is a recipe, and `failed` is
    that of the stage's last run. `stale` needs a recipe. `shards_with_failures` counts shards some of whose images
    could not be used. `eta` is in seconds; it and `images_per_s` come from drivers that live.
    """

    name: str
    units: int
    done: int
    running: int
    failed: int
    left: int
    shards_with_failures: int
    stale: int | None = None
    images_per_s: float = 0.0
    eta: float | None = None
    why_failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """A data set's state at one moment. `runs` are the latest records, one row per stage, the latest first."""

    url: str
    images: int
    shards: int
    stages: list[StageStatus]
    drivers: list[Driver]
    runs: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON: times as ISO texts."""
        told = asdict(self)
        for run in told["runs"]:
            run["started"] = run["started"].isoformat()
        return told


def read_status(dataset: Dataset, recipe: Recipe | None = None) -> Status:
    """Look at a data set. With a recipe its specialists are told that have not begun yet, and what is stale.

    Raises RecipeError where the recipe cannot be run on this data set.
    """
    plan = None
    if recipe is not None:
        recipe = with_students(recipe, dataset, lambda _: None)
        plan = make_plan(recipe, dataset)
    working, runs = drivers(dataset), _latest_runs(dataset)
    stages = [
        _stage(dataset, name, folder, plan, [d for d in working if not d.gone], runs)
        for name, folder in _stages(dataset, recipe, working, runs).items()
    ]
    return Status(dataset.url, dataset.info.images, dataset.info.shards, stages, working, runs)


def _stages(
    dataset: Dataset, recipe: Recipe | None, working: Sequence[Driver], runs: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Every stage that has shards or should have, with their folder. A stage without any that the last run of its
    command does not name was given up."""
    names = dict.fromkeys([] if recipe is None else recipe.ordered())
    names |= dict.fromkeys(dataset.sources())
    names |= dict.fromkeys(name for driver in working for name in driver.stages)
    names |= dict.fromkeys(run["stage"] for run in reversed(_last_of_each_command(runs)))
    folders = {name: f"annotations/{name}" for name in names if not _round(name)}
    for source in (*dataset.info.labels, REVIEWER, "ingest"):
        folders.pop(source, None)
    judged = {_round(name) for name in names} | {str(number) for number in rounds(dataset)}
    if recipe is not None and recipe.filters:
        judged.add("0")
    for number in sorted(judged - {""}, key=int):
        folders["filter" if number == "0" else f"filter-{number}"] = f"verdicts/{number}"
    return folders


def _last_of_each_command(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    last = {run["command"]: run["run_id"] for run in reversed(runs)}  # the latest come first
    return [run for run in runs if last[run["command"]] == run["run_id"]]


def _round(name: str) -> str:
    """The round of a filter's stage, as records name it; empty for a specialist."""
    if name == "filter":
        return "0"
    number = name.removeprefix("filter-")
    return number if number != name and number.isdecimal() else ""


def _stage(
    dataset: Dataset,
    name: str,
    folder: str,
    plan: Plan | None,
    alive: Sequence[Driver],
    runs: Sequence[Mapping[str, Any]],
) -> StageStatus:
    units = dataset.info.shards
    planned = None if plan is None else plan.stages.get(name)
    # A shard of another data set's size would be a mistake of the folder's, not work done.
    done = min(units, len(dataset.store.files(folder))) if planned is None else planned.current
    last = next((run for run in runs if run["stage"] == name), None)
    failed = 0 if last is None else min(last["units_failed"], units - done)
    rate, eta, running, why = 0.0, None, set[str](), dict[str, str]()
    told = [stage for driver in alive if (stage := _sound(driver.stages.get(name))) is not None]
    if told:
        why = {shard: str(reason) for stage in told for shard, reason in stage["failed"].items()}
        failed = max(stage["units"]["failed"] for stage in told)
        left = min(stage["units"]["left"] for stage in told)
        done = max(0, units - left - failed)
        running = {shard for stage in told for shard in stage["units"]["running"]}
        rate = sum(stage["images_per_s"] for stage in told)
        images = min(stage["total_images"] - stage["images"] for stage in told)
        eta = images / rate if rate and left else None
    return StageStatus(
        name=name,
        units=units,
        done=done,
        running=len(running),
        failed=failed,
        left=max(0, units - done - failed),
        shards_with_failures=0
        if folder.startswith("verdicts")
        else len(dataset.store.files(f"failures/{name}")),
        stale=None if planned is None else planned.stale,
        images_per_s=rate,
        eta=eta,
        why_failed=dict(list(why.items())[:_REASONS_SHOWN]),
    )


def _sound(stage: Any) -> Mapping[str, Any] | None:
    """A stage of a live file, if it says what it should; a data set may come from anywhere."""
    try:
        units = stage["units"]
        whole = all(isinstance(units[key], int) for key in ("left", "failed"))
        numbers = all(
            isinstance(stage[key], int | float) for key in ("images", "total_images", "images_per_s")
        )
        names = all(isinstance(shard, str) for shard in units["running"])
        return stage if whole and numbers and names and isinstance(stage["failed"], dict) else None
    except (TypeError, KeyError):
        return None


def _latest_runs(dataset: Dataset) -> list[dict[str, Any]]:
    found = []
    for name in reversed(dataset.store.files("runs")[-_RUNS:]):
        try:
            found += read_table(dataset.store, f"runs/{name}").to_pylist()
        except (DatasetError, StorageError):  # damaged, or removed meanwhile: fde qa tells
            continue
    return sorted(found, key=lambda run: run["started"], reverse=True)


def lines(status: Status) -> Iterator[str]:
    """The state as text for a terminal; nothing from the data set reaches it unescaped."""
    yield f"{printable(status.url)}: {counted(status.images, 'image')} in {counted(status.shards, 'shard')}"
    yield from _table(status.stages)
    for stage in status.stages:
        for shard, why in stage.why_failed.items():
            yield f"{printable(stage.name)} {printable(shard)} failed: {printable(why)[:_REASON]}"
    for driver in status.drivers:
        state = "gone" if driver.gone else "lives"
        what = f"{driver.told.get('command')} with {driver.told.get('recipe')}"
        yield (
            f"driver {state}: {printable(driver.run_id)}, {printable(what)} by {printable(driver.who)}, "
            f"last seen {clock(driver.age)} ago"
        )
    shown: dict[str, None] = {}
    for run in status.runs:
        if run["run_id"] not in shown and len(shown) < _RUNS_SHOWN:
            shown[run["run_id"]] = None
            yield _run_line([other for other in status.runs if other["run_id"] == run["run_id"]])


def _table(stages: Sequence[StageStatus]) -> Iterator[str]:
    heads = ("stage", "done", "running", "failed", "left", "stale", "images/s", "ETA", "shards with failures")
    rows = [
        (
            printable(stage.name),
            f"{stage.done:,}/{stage.units:,}",
            f"{stage.running:,}",
            f"{stage.failed:,}",
            f"{stage.left:,}",
            "" if stage.stale is None else f"{stage.stale:,}",
            f"{stage.images_per_s:,.1f}" if stage.images_per_s else "",
            "" if stage.eta is None else clock(stage.eta),
            f"{stage.shards_with_failures:,}",
        )
        for stage in stages
    ]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells).rstrip()


def _run_line(rows: Sequence[Mapping[str, Any]]) -> str:
    run = rows[0]
    started: datetime = run["started"]
    who = f" by {run['user']}@{run['host']}" if run.get("user") else ""
    cost = ""
    if run.get("cpu_hours") is not None:
        cpu, gpu = (sum(row[key] or 0.0 for row in rows) for key in ("cpu_hours", "gpu_hours"))
        cost = f", {cpu:.2f} CPU-hours, {gpu:.2f} GPU-hours"
    error = f": {run['error']}" if run.get("error") else ""
    recipe = f" with {run['recipe']}" if run.get("recipe") else ""
    text = (
        f"run {run['run_id']}: {run['command']}{recipe}{who}, "
        f"{started.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {run['status']} after {clock(run['seconds'])}{cost}{error}"
    )
    return printable(text)
