"""Counts of a run as Prometheus metrics, through Ray: each node of a cluster offers them beside Ray's own.

The driver exports them from what it knows of the stages, in one place, so no actor has to. Prometheus finds them at
the metrics port of the driver's node, named with `ray_` before the names here. All carry the tags `run` and `stage`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_engine.runner.progress import StageProgress

EVERY = 5.0
"""Seconds between two exports; Ray hands metrics on every few seconds, and Prometheus asks every 15 or so."""

TAGS = ("run", "stage")

GAUGES: dict[str, tuple[str, Callable[[StageProgress], float]]] = {
    "fde_units": ("Shards that the stage should have.", lambda s: s.units),
    "fde_units_left": ("Shards neither done nor given up.", lambda s: s.left),
    "fde_units_running": ("Shards in work.", lambda s: len(s.running)),
    "fde_actors": ("Processes of the stage.", lambda s: s.actors),
    "fde_images_per_second": ("Images a second since the stage began.", lambda s: s.rate),
}
COUNTERS: dict[str, tuple[str, Callable[[StageProgress], float]]] = {
    "fde_units_done_total": ("Shards done by this run.", lambda s: s.units_done),
    "fde_units_skipped_total": ("Shards that were there already.", lambda s: s.units_skipped),
    "fde_units_failed_total": ("Shards given up.", lambda s: s.units_failed),
    "fde_units_redone_total": ("Shards begun again after a death.", lambda s: s.redone),
    "fde_stragglers_total": ("Slow shards that a second process was given.", lambda s: s.stragglers),
    "fde_images_total": ("Images done by this run.", lambda s: s.images - s.skipped_images),
    "fde_failures_total": ("Images that could not be used.", lambda s: s.failures),
    "fde_annotations_total": ("Rows written.", lambda s: s.annotations),
    "fde_actor_seconds_total": ("Time that processes of the stage were there.", lambda s: s.actor_seconds),
}
UNIT_SECONDS = "fde_unit_seconds"
_BOUNDARIES = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]


@dataclass
class Exporter:
    """What was exported so far. Counts go up by differences; those that fell (a unit begun again) wait until they
    have caught up."""

    _made: dict[str, Any] = field(default_factory=dict)
    _told: dict[tuple[str, str, str], float] = field(default_factory=dict)
    _last: float = float("-inf")

    def export(self, run_id: str, stages: Mapping[str, StageProgress], *, last: bool = False) -> None:
        """Hand the counts to Ray, at most every few seconds; nothing where this process is on no cluster."""
        now = time.monotonic()
        ray = sys.modules.get("ray")
        if (now - self._last < EVERY and not last) or ray is None or not ray.is_initialized():
            return
        self._last = now
        if not self._made:
            self._made = _metrics(ray)
        for name, stage in stages.items():
            tags = {"run": run_id, "stage": name}
            for metric, (_, value) in GAUGES.items():
                self._made[metric].set(value(stage), tags)
            for metric, (_, value) in COUNTERS.items():
                there = value(stage)
                more = there - self._told.get((run_id, name, metric), 0.0)
                if more > 0:
                    self._made[metric].inc(more, tags)
                    self._told[run_id, name, metric] = there
            while stage.unit_seconds:
                self._made[UNIT_SECONDS].observe(stage.unit_seconds.popleft(), tags)


def _metrics(ray: ModuleType) -> dict[str, Any]:
    from ray.util import metrics

    made: dict[str, Any] = {}
    for name, (words, _) in GAUGES.items():
        made[name] = metrics.Gauge(name, words, TAGS)
    for name, (words, _) in COUNTERS.items():
        made[name] = metrics.Counter(name, words, TAGS)
    made[UNIT_SECONDS] = metrics.Histogram(UNIT_SECONDS, "Time that a shard took.", _BOUNDARIES, TAGS)
    return made
