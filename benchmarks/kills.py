"""Nodes of a Ray cluster and the driver killed at random points of a run; the data set ends as undisturbed.

    python benchmarks/kills.py [--images 2000] [--kills 50] [--nodes 3] [--seed 1]

Draws scenes, annotates them once without a disturbance, and once on a cluster of several nodes (each
`ray start` a process family of its own on this machine) while one of these is killed with SIGKILL, again and again,
each at a random number of finished units and a random moment after: a node with all that runs on it, a raylet alone
(its workers live on for a while), the driver, or the head, which is the end of the cluster. After each kill all that
stands in the data set is compared with the undisturbed run's. Ends with exit code 1 where a row differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from data_engine.ingest.run import ingest
from data_engine.scenes.write import make_scenes
from tests.fault_cluster import ROOT, Cluster, wait_until
from tests.fault_compare import differences, shards, twins
from tests.fault_specialists import JOURNAL

SHARD = 25
STAGES = ("looks", "distorts", "counts")
RECIPE = """
name: kills
specialists:
  looks: {{use: "tests.fault_specialists:Looks", batch: 25, actors: 2, cpus: 0.5, args: {{pause: {pause}}}}}
  distorts:
    use: tests.fault_specialists:Distorts
    batch: 25
    actors: 2
    cpus: 0.5
    needs: [truth]
    args: {{pause: {pause}, rates: {{jittered: 0.3, mislabelled: 0.2, missed: 0.1}}, classes: [circle, star]}}
  counts:
    {{use: "tests.fault_specialists:Counts", batch: 25, cpus: 0.5, needs: [looks, distorts],
      args: {{pause: {pause}}}}}
"""
SHARES = {"node": 0.46, "raylet": 0.14, "driver": 0.34, "head": 0.06}
"""Of all kills, how many hit what."""

_DELAY = 2.0
"""A kill follows at most so many seconds after the unit that it waits for."""


@dataclass
class Job:
    """The data set under fire, and what an undisturbed one holds."""

    folder: Path
    calm: Path
    dataset: Path
    recipe: Path
    journal: Path
    units: int
    exits: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def finished(self) -> int:
        """Units whose file is in place."""
        return sum(name.split("/")[1] in STAGES for name in shards(self.dataset, ["annotations"]))

    def check(self, *, finished: bool = False) -> None:
        """Compare what stands with the undisturbed run; what differs is told at the end."""
        self.wrong += differences(self.calm, self.dataset, finished=finished)


def prepare(folder: Path, images: int, pause: float) -> Job:
    make_scenes(folder / "scenes", images, seed=1, size=(160, 120))
    recipe = folder / "kills.yaml"
    for name, wait in (("calm", 0.0), ("dataset", pause)):
        ingest(str(folder / "scenes"), str(folder / name), shard_size=SHARD)
        recipe.write_text(RECIPE.format(pause=wait / SHARD))
        if name == "calm":
            annotate = [sys.executable, "-m", "pipelines", "annotate", str(folder / name), "-r", str(recipe)]
            subprocess.run([*annotate, "--runner", "inline"], cwd=ROOT, check=True, capture_output=True)
    units = len(STAGES) * -(-images // SHARD)
    return Job(folder, folder / "calm", folder / "dataset", recipe, folder / "journal", units)


def driver(job: Job, cluster: Cluster) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines", "annotate", str(job.dataset), "-r", str(job.recipe)]
    with (job.folder / "driver.log").open("ab") as said:
        return subprocess.Popen(
            [*command, "--runner", "ray", "--address", cluster.address],
            cwd=ROOT,
            env=cluster.environment,
            stdout=said,
            stderr=said,
        )


def disturb(job: Job, cluster: Cluster, kills: int, seed: int) -> Counter[str]:
    """Run to the end, with `kills` disturbances on the way."""
    chance = random.Random(seed)
    points = sorted(chance.randint(1, int(0.95 * job.units)) for _ in range(kills))
    victims = [what for what, share in SHARES.items() for _ in range(round(share * kills))]
    victims = (victims + ["node"] * kills)[:kills]
    chance.shuffle(victims)
    killed: Counter[str] = Counter()
    process = driver(job, cluster)
    for point, victim in zip(points, victims, strict=True):
        if not reached(job, point, process):
            raise SystemExit(f"nothing was finished for 10 minutes; see {job.folder}")
        time.sleep(chance.random() * _DELAY)
        if process.poll() is not None:
            process = again(job, cluster, process)
        process = kill(job, cluster, process, victim, chance)
        killed[victim] += 1
        job.check()
        print(f"  {sum(killed.values()):>3} {victim:<7} at {job.finished()} of {job.units} units", flush=True)
    while True:
        process.wait()
        if process.returncode == 0:
            return killed
        process = again(job, cluster, process)


def reached(job: Job, point: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until so many units are finished, or the driver has ended; whether that came within ten minutes."""
    return wait_until(lambda: job.finished() >= point or process.poll() is not None, 600)


def kill(
    job: Job, cluster: Cluster, process: subprocess.Popen[bytes], victim: str, chance: random.Random
) -> subprocess.Popen[bytes]:
    """Kill one thing and put another in its place; the driver that runs afterwards."""
    if victim == "driver":
        process.kill()
        process.wait()
        return driver(job, cluster)
    if victim == "head":
        cluster.lose_head()
        if not wait_until(lambda: process.poll() is not None, 300):
            job.wrong.append("the driver went on for 5 minutes after the head was gone")
            process.kill()
        job.exits[f"{process.wait()} when the head was gone"] += 1
        cluster.start()
        return driver(job, cluster)
    cluster.lose(chance.choice(cluster.nodes), victim)
    cluster.add()
    return process


def again(job: Job, cluster: Cluster, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """A driver that ended by itself before all was done is started again, as a person would."""
    job.exits[str(process.returncode)] += 1
    if process.returncode not in (0, 4, 6):
        job.wrong.append(f"the driver ended with {process.returncode}")
    return driver(job, cluster)


def redone(job: Job) -> dict[str, int]:
    """Of each specialist, how many times more often a unit was begun than there are units."""
    begun: Counter[str] = Counter()
    for line in job.journal.read_text().splitlines():
        begun[line.split()[0]] += int(line.split()[2]) == SHARD
    return {stage: begun[stage] - job.units // len(STAGES) for stage in STAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="a multiple of 25")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds that each unit waits at least")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fde-kills-"))
    started = time.monotonic()
    job = prepare(folder, given.images, given.pause)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with Cluster(given.nodes, {JOURNAL: str(job.journal)}) as cluster:
        print(f"{given.images} images, {job.units} units, {given.nodes} nodes and a head", flush=True)
        killed = disturb(job, cluster, given.kills, given.seed)
    job.check(finished=True)
    left = list((job.dataset / ".tmp").iterdir())
    print(f"killed: {', '.join(f'{count} {what}' for what, count in killed.items())}")
    print(f"drivers that ended by themselves before the end: {dict(job.exits) or 'none'}")
    print(f"units begun again: {redone(job)} of {job.units}")
    print(f"half-written files left in .tmp: {len(left)}, {sum(p.stat().st_size for p in left):,} bytes")
    rows = sum(len(part) for part in (shards(job.dataset), shards(job.calm)))
    print(
        f"annotations with an id that another has: {twins(job.dataset)}; shards compared at the end: {rows // 2}"
    )
    print(f"the whole took {time.monotonic() - started:.0f} s")
    for line in dict.fromkeys(job.wrong):
        print(f"WRONG: {line}")
    if job.wrong or twins(job.dataset):
        print(f"the data sets stay in {folder}")
        raise SystemExit(1)
    print("row for row as the undisturbed run")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
