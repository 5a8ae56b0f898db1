"""Progress of a run: live bars in a terminal, a plain log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from data_engine.logs import about, as_json
from data_engine.runner.metrics import Exporter
from data_engine.runner.work import Beat, Done
from data_engine.wording import counted

if TYPE_CHECKING:
    from rich.progress import Task, TaskID

log = logging.getLogger("data_engine")


@dataclass
class StageProgress:
    """Counts of one stage. `total` and `images` count images; those of finished shards count at once.

    `units` counts the shards that the stage should have. `running` has those in work and since when
    (`time.monotonic`), `failed` those that this run gave up and why, `unit_seconds` how long the latest of those done
    took. `actors` is how many processes the stage has now, and `actor_seconds` how long all that it had were there.
    `redone` counts the units that were begun again after a death, `stragglers` those that were issued twice.
    """

    name: str
    total: int
    images: int = 0
    failures: int = 0
    units_done: int = 0
    units_skipped: int = 0
    units_failed: int = 0
    annotations: int = 0
    started: float | None = None
    ended: float | None = None
    skipped_images: int = 0
    said: bool = False
    results: list[dict[str, Any]] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    actors: int = 0
    actor_seconds: float = 0.0
    units: int = 0
    redone: int = 0
    stragglers: int = 0
    unit_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))

    @property
    def rate(self) -> float:
        """Images per second from the stage's first unit to its last, or until now."""
        if self.started is None:
            return 0.0
        return (self.images - self.skipped_images) / max(
            1e-3, (self.ended or time.monotonic()) - self.started
        )

    @property
    def line(self) -> str:
        if self.started is None:
            return "waiting" if self.images < self.total else "nothing to do"
        if self.images >= self.total or self.ended is not None:
            eta = ", done"
        else:
            eta = "" if self.eta is None else f", {clock(self.eta)} left"
        return f"{self.rate:,.1f} images/s{eta}, {counted(self.failures, 'failure')}"

    @property
    def counts(self) -> dict[str, float | None]:
        """What a log line tells as numbers."""
        return {
            "images": self.images,
            "total_images": self.total,
            "failures": self.failures,
            "annotations": self.annotations,
            "units_done": self.units_done,
            "units_failed": self.units_failed,
            "units_left": self.left,
            "images_per_s": round(self.rate, 3),
            "eta_s": self.eta,
        }

    def count(self, event: Beat | Done) -> None:
        match event:
            case Beat():
                self.images += event.images
                self.failures += event.failures
            case Done():
                self.units_done += 1
                self.annotations += event.annotations
                if event.result is not None:
                    self.results.append(event.result)
                self._end_if_complete()

    def begin(self, shard: str) -> None:
        """A shard is in work from now on."""
        self.running[shard] = time.monotonic()

    def end(self, shard: str, *, done: bool) -> None:
        """A shard is in work no more; the time that it took is kept where it was done."""
        since = self.running.pop(shard, None)
        if done and since is not None:
            self.unit_seconds.append(time.monotonic() - since)

    @property
    def left(self) -> int:
        """Shards that are neither done, nor there already, nor given up."""
        return max(0, self.units - self.units_done - self.units_skipped - self.units_failed)

    @property
    def eta(self) -> float | None:
        """Seconds until the stage's last image at the rate so far; None before there is a rate."""
        return (self.total - self.images) / self.rate if self.started is not None and self.rate else None

    def skip(self, units: int, images: int) -> None:
        self.units_skipped += units
        self.images += images
        self.skipped_images += images
        self._end_if_complete()

    def give_up(self, shard: str, why: str) -> None:
        """This run will not do a shard."""
        self.units_failed += 1
        self.failed[shard] = why
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if not self.left and self.ended is None:
            self.ended = time.monotonic()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: `1:02:03`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class Note(Protocol):
    """What `Reporter.note` is: one line, and the stage and shard that it tells of."""

    def __call__(self, message: str, *, stage: str = "", shard: str = "") -> None: ...


class _Words(TextColumn):
    """A column of plain text: names from a recipe must not be read as markup."""

    def __init__(self, field: str) -> None:
        super().__init__("")
        self.field = field

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self.field, "")))


class Reporter:
    """Shows stages as they advance, and exports their counts as metrics where there is a cluster. `tick` may be
    called as often as wanted; it limits itself. `run_id` is that of the invocation, once it has one."""

    def __init__(self, *, terminal: bool | None = None, every: float = 10.0) -> None:
        self.console = Console(stderr=True)
        self.terminal = (self.console.is_terminal and not as_json()) if terminal is None else terminal
        self.every = every
        self.run_id = ""
        self.exporter = Exporter()
        self.stages: dict[str, StageProgress] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last = time.monotonic()

    @contextmanager
    def shown(self, stages: dict[str, StageProgress]) -> Iterator[Reporter]:
        self.stages = stages
        if self.terminal:
            self._bars = Progress(
                _Words("stage"),
                BarColumn(),
                _Words("count"),
                _Words("line"),
                console=self.console,
                refresh_per_second=4,
            )
            self._bars.start()
            for name, stage in stages.items():
                self._tasks[name] = self._bars.add_task("", total=max(1, stage.total), stage=name)
        try:
            yield self
        finally:
            self.tick(last=True)
            if self._bars is not None:
                self._bars.stop()

    @contextmanager
    def counted(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show one count whose end is not known: call what this gives with images done and failed so far."""
        started = time.monotonic()

        def line(done: int, failed: int) -> str:
            rate = done / max(1e-3, time.monotonic() - started)
            return f"{name} {done:,} images, {rate:,.0f} images/s, {counted(failed, 'failure')}"

        if not self.terminal:

            def say(done: int, failed: int) -> None:
                if time.monotonic() - self._last >= self.every:
                    self._last = time.monotonic()
                    log.info("%s", line(done, failed))

            yield say
            return
        with self.console.status(name) as status:
            yield lambda done, failed: status.update(Text(line(done, failed)))

    def note(self, message: str, *, stage: str = "", shard: str = "") -> None:
        """One line that is worth a person's attention, kept in the log or above the bars."""
        log.warning(message, extra=about(run_id=self.run_id, stage=stage, shard=shard))

    def tick(self, *, last: bool = False) -> None:
        """Show what is new: all stages where the last time is long enough ago, and a stage that has ended at once."""
        self.exporter.export(self.run_id, self.stages, last=last)
        now = time.monotonic()
        due = last or now - self._last >= (0.2 if self.terminal else self.every)
        if due:
            self._last = now
        for name, stage in self.stages.items():
            over = stage.ended is not None and not stage.said
            if not due and not over:
                continue
            if self._bars is not None:
                self._bars.update(
                    self._tasks[name],
                    completed=stage.images if stage.total else 1,
                    count=f"{stage.images:,}/{stage.total:,}",
                    line=stage.line,
                )
            elif stage.started is not None and not stage.said:
                known = about(run_id=self.run_id, stage=name, **stage.counts)
                log.info(
                    "%s %s/%s images, %s",
                    name,
                    f"{stage.images:,}",
                    f"{stage.total:,}",
                    stage.line,
                    extra=known,
                )
            stage.said = stage.said or over
