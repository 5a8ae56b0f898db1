"""How many units a second one driver schedules: on a simulated cluster of any size, and on a real one here.

    python benchmarks/schedule.py [--shards 100000] [--seconds 0.01] [--actors 16 100 1000 10000] [--real 2000]

Stub specialists of 10 ms: one, and one that needs it, over 100,000 shards each. The simulated cluster has the
part of Ray's interface that the runner uses, its actors run the runner's own code, and its clock counts what the
driver takes of a processor and skips what it waits. The real one is Ray on this machine with actors that ask for
no CPU: what its processes take of the same cores is in the figure.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

from data_engine.recipe import SpecialistPart
from data_engine.runner.plan import Plan, Stage
from data_engine.runner.pool import RayRun
from data_engine.runner.progress import Reporter, StageProgress
from data_engine.runner.work import Beat, Done
from data_engine.shards import shard_name

STAGES = 2
DATASET = SimpleNamespace(images_in=lambda shard: 1)


class SleepWorker:
    """The stub specialist on a real cluster."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def load(self) -> None: ...

    def run(self, shard, careful=None):
        time.sleep(self.seconds)
        yield Beat(1, 0, 1)
        yield Done(1, 0, 1)


def plan_of(shards: int, actors: int, cpus: float) -> tuple[Plan, Reporter]:
    todo = [shard_name(i) for i in range(shards)]
    stages = {}
    for number in range(STAGES):
        part = SpecialistPart(use="benchmarks.schedule:SleepWorker", actors=actors, cpus=cpus)
        needs = [f"stub{number - 1}"] if number else []
        stages[f"stub{number}"] = Stage(f"stub{number}", part, "", todo, 0, 0, needs)
    reporter = Reporter(terminal=False, every=1e9)
    reporter.stages = {name: StageProgress(name, shards, units=shards) for name in stages}
    return Plan(stages), reporter


def simulated(shards: int, seconds: float, actors: int) -> None:
    # Not above: it imports Ray, which must not be there before the real part says how to authenticate.
    from tests.simulated_cluster import SimulatedRay, StubWorker

    plan, reporter = plan_of(shards, actors // STAGES, 1)
    ray = SimulatedRay()
    for number in range(max(1, actors // 64)):
        ray.add_node(f"node{number}", CPU=max(64.0, 1.0 * actors))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = RayRun(ray, plan, DATASET, reporter, lambda stage: partial(StubWorker, seconds), ray, ray)
    run.execute()
    units = STAGES * shards
    assert sum(progress.units_done for progress in reporter.stages.values()) == units
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"simulated, {actors:>6,} actors: {units / ray.monotonic():>9,.0f} units/s of {actors / seconds:>9,.0f} that "
        f"the actors could do; driver {ray.driver_seconds:6.1f} s of CPU, {ray.driver_seconds / units * 1e6:4.0f} us a "
        f"unit, {ray.messages / units:.3f} messages a unit, {most / 1024:,.0f} MiB (before: {before / 1024:,.0f})",
        flush=True,
    )


def real(shards: int, seconds: float, actors: int) -> None:
    from data_engine.runner.cluster import Cluster, connect

    ray, ours = connect(None)
    cluster = Cluster(ray)
    plan, reporter = plan_of(shards, actors // STAGES, 0)
    run = RayRun(ray, plan, DATASET, reporter, lambda stage: partial(SleepWorker, seconds), cluster)
    cpu = time.process_time()
    run.execute()
    cpu = time.process_time() - cpu
    units = STAGES * shards
    since = min(progress.started for progress in reporter.stages.values())
    print(
        f"real Ray, {actors} actors: {units / (time.monotonic() - since):,.0f} units/s of {actors / seconds:,.0f} that "
        f"the actors could do; driver {cpu:.1f} s of CPU, {cpu / units * 1e6:,.0f} us a unit"
    )
    cluster.close()
    if ours:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=0.01)
    parser.add_argument("--actors", type=int, nargs="*", default=[16, 100, 1000, 10_000])
    parser.add_argument("--real", type=int, default=2000)
    parser.add_argument("--real-actors", type=int, default=4)
    options = parser.parse_args()
    if options.real or len(options.actors) > 1:
        # Each in a process of its own: the peak of memory is the process's.
        for count in options.actors:
            command = [sys.executable, __file__, "--actors", str(count), "--real", "0"]
            command += ["--shards", str(options.shards), "--seconds", str(options.seconds)]
            subprocess.run(command, check=True)
    else:
        for count in options.actors:
            simulated(options.shards, options.seconds, count)
    if options.real:
        real(options.real // STAGES, options.seconds, options.real_actors)


if __name__ == "__main__":
    main()
