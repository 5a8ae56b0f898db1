"""Faults of actors, nodes and the head of a Ray cluster. Each function brings one about and says what happened.

One cluster of two nodes serves them all; a row that breaks it mends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.fault_children import Said
from tests.fault_cluster import ROOT, Cluster, wait_until
from tests.fault_place import Place

UNHAPPY = (
    '{{use: "tests.fault_specialists:Unhappy", batch: 5, cpus: 0.5, silence: 20, '
    'args: {{how: {how}, images: {images}, mark: "{mark}"}}}}'
)

_cluster: list[Cluster] = []


def cluster() -> Cluster:
    if not _cluster:
        _cluster.append(Cluster(2))
    return _cluster[0]


def stop_cluster() -> None:
    """To be called when the last of these rows is done."""
    while _cluster:
        _cluster.pop().__exit__()


class Driver:
    """`fde annotate` on the cluster, as a process of its own."""

    def __init__(self, place: Place, recipe: Path) -> None:
        command = [sys.executable, "-m", "pipelines", "annotate", str(place.dataset), "-r", str(recipe)]
        self.log = place.folder / "driver.log"
        with self.log.open("w") as said:
            self.process = subprocess.Popen(
                [*command, "--runner", "ray", "--address", cluster().address],
                cwd=ROOT,
                env=cluster().environment,
                stdout=said,
                stderr=said,
            )

    def ended(self) -> Said:
        code = self.process.wait(timeout=900)
        return Said(code, self.log.read_text())


def _unhappy(place: Place, how: str, images: list[int], once: bool) -> Said:
    mark = place.folder / f"{how}.mark" if once else ""
    recipe = place.other_recipe(UNHAPPY.format(how=how, images=images, mark=mark))
    return Driver(place, recipe).ended()


def actor_killed_once(place: Place) -> str:
    """an actor is killed once (SIGKILL)"""
    return _met_once(place, "kill")


def actor_crashes(place: Place) -> str:
    """an actor crashes (segmentation fault)"""
    return _met_once(place, "segfault")


def actor_hangs_once(place: Place) -> str:
    """an actor hangs once"""
    return _met_once(place, "hang")


def _met_once(place: Place, how: str) -> str:
    said = _unhappy(place, how, [13], once=True)
    assert said.code == 0, said.text
    assert place.reasons() == place.refused()
    return "exit 0: its unit was done again by another actor; every image is annotated"


def image_that_kills(place: Place) -> str:
    """an image crashes whatever process works on it"""
    return _met_always(place, "segfault")


def image_that_hangs(place: Place) -> str:
    """an image hangs whatever process works on it"""
    return _met_always(place, "hang")


def _met_always(place: Place, how: str) -> str:
    said = _unhappy(place, how, [13], once=False)
    assert said.code == 0, said.text
    assert place.reasons() == {**place.refused(), "killed_worker": 1}, place.reasons()
    return "exit 0: that image is found and is a row in `failures`, `killed_worker`; all others are annotated"


def node_cut_off(place: Place) -> str:
    """a node stops answering (SIGSTOP of all of it), is given up, and comes back to life later"""
    driver = Driver(place, place.slow_recipe(0.3))
    if not wait_until(lambda: place.done() >= 1 or driver.process.poll() is not None, 300):
        raise AssertionError(driver.log.read_text())
    node = max(cluster().nodes, key=lambda one: len(one.workers()))
    family = [process for process in node.family() if process.pid != node.process.pid]
    _signal(family, signal.SIGSTOP)
    try:
        said = driver.ended()
        assert said.code == 0, said.text
        place.whole()
    finally:
        _signal(family, signal.SIGCONT)
    time.sleep(5)
    place.whole()
    cluster().lose(node)
    cluster().start_nodes()
    return "exit 0: its units were done on the other node; what it still writes when it is back is the same"


def head_gone(place: Place) -> str:
    """the head of the cluster is gone in the middle"""
    driver = Driver(place, place.slow_recipe(0.3))
    if not wait_until(lambda: place.done() >= 1 or driver.process.poll() is not None, 300):
        raise AssertionError(driver.log.read_text())
    cluster().lose_head()
    said = driver.ended()
    assert said.code == 4 and "Traceback" not in said.text, said.text
    place.sound()
    cluster().start()
    assert Driver(place, place.slow_recipe(0.3)).ended().code == 0
    place.whole()
    return f"exit 4, `{said.error.replace(cluster().address, 'ADDRESS')[:120]}`; on a new cluster the same command did the rest"


def _signal(family: list[psutil.Process], number: int) -> None:
    for process in family:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue


ROWS = (
    actor_killed_once,
    actor_crashes,
    actor_hangs_once,
    image_that_kills,
    image_that_hangs,
    node_cut_off,
    head_gone,
)
