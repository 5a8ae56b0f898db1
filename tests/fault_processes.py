"""Faults of processes: ended, crowded, out of memory, several at once. Each function brings one about, without Ray."""

from __future__ import annotations

import random
import signal
import time

from tests.fault_children import Said
from tests.fault_place import IMAGES, Place

HUNGRY = '{use: "tests.fault_specialists:Hungry", batch: 10, args: {mib: 20, limit: 100, images: %s}}'
UNHAPPY = '{use: "tests.fault_specialists:Unhappy", batch: 5, args: {how: raise, images: %s}}'


def _stopped(place: Place, number: int, seed: int) -> Said:
    """Stop a run at a random moment, three times; then finish it."""
    chance = random.Random(seed)
    inline = ("annotate", place.dataset, "-r", place.slow_recipe(0.03), "--runner", "inline")
    for _ in range(3):
        before = place.done()
        child = place.start(*inline)
        while place.done() <= before:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.3)
        child.kill(number)
        said = child.ended()
        if said.code == 0:
            break
        place.sound()
    last = place.fde(*inline)
    assert last.code == 0, last.text
    place.whole()
    return said


def power_off(place: Place) -> str:
    """the driver is killed (SIGKILL) at random moments, three times"""
    said = _stopped(place, signal.SIGKILL, 1)
    assert said.code == -signal.SIGKILL, said.text
    return "what stands after each is right; the same command did the rest"


def terminated(place: Place) -> str:
    """the driver is sent SIGTERM, as Slurm and Kubernetes do"""
    said = _stopped(place, signal.SIGTERM, 2)
    return f"ended by {_way(said)}; the same command did the rest"


def interrupted(place: Place) -> str:
    """Ctrl-C"""
    said = _stopped(place, signal.SIGINT, 3)
    assert said.code == 130 and "Traceback" not in said.text, said.text
    return "exit 130, `fde: interrupted`; the same command did the rest"


def _way(said: Said) -> str:
    return f"signal {-said.code}" if said.code < 0 else f"exit {said.code}"


def suspended(place: Place) -> str:
    """the driver is stopped (SIGSTOP: a paused machine) while another does its work, and goes on then"""
    inline = ("annotate", place.dataset, "-r", place.slow_recipe(0.03), "--runner", "inline")
    child = place.start(*inline, name="first")
    while place.done() < 1:
        time.sleep(0.005)
    child.kill(signal.SIGSTOP)
    other = place.fde(*inline)
    assert other.code == 0, other.text
    place.whole()
    child.kill(signal.SIGCONT)
    assert child.ended().code == 0
    place.whole()
    return "exit 0 for both: what the first writes again afterwards is the same"


def two_drivers(place: Place) -> str:
    """two drivers on one data set at once, with one recipe"""
    inline = ("annotate", place.dataset, "-r", place.slow_recipe(0.03), "--runner", "inline")
    children = [place.start(*inline, name=name) for name in ("first", "second")]
    said = [child.ended() for child in children]
    assert [one.code for one in said] == [0, 0], said
    place.whole()
    return "exit 0 for both; no row is there twice"


def two_recipes(place: Place) -> str:
    """a second driver comes with another recipe for the same specialist"""
    inline = ("--runner", "inline")
    child = place.start("annotate", place.dataset, "-r", place.slow_recipe(0.03), *inline, name="first")
    while place.done() < 1:
        time.sleep(0.005)
    other = place.other_recipe('{use: "tests.fault_specialists:Looks", batch: 7}')
    said = place.fde("annotate", place.dataset, "-r", other, *inline)
    assert said.code == 3, said.text
    assert child.ended().code == 0
    place.whole()
    return f"the second ends with exit 3, `{said.error[:110]}...`; the first is not disturbed"


def out_of_memory(place: Place) -> str:
    """a batch does not fit into memory (a real limit on the process)"""
    said = place.annotate(recipe=place.other_recipe(HUNGRY % []))
    assert said.code == 0, said.text
    assert place.reasons() == place.refused()
    return "exit 0: batches were halved until they fit; every image is annotated"


def one_too_large(place: Place) -> str:
    """one image does not fit into memory, even alone"""
    said = place.annotate(recipe=place.other_recipe(HUNGRY % [13]))
    assert said.code == 0, said.text
    assert place.reasons() == {**place.refused(), "out_of_memory": 1}
    return "exit 0: that image is a row in `failures`, `out_of_memory`; all others are annotated"


def defect_on_one(place: Place) -> str:
    """the specialist raises an error on one image"""
    said = place.annotate(recipe=place.other_recipe(UNHAPPY % [13]))
    assert said.code == 0, said.text
    assert place.reasons() == {**place.refused(), "specialist_error": 1}
    return "exit 0: that image is a row in `failures`, `specialist_error`; all others are annotated"


def defect_on_all(place: Place) -> str:
    """the specialist raises an error on every image"""
    said = place.annotate(recipe=place.other_recipe(UNHAPPY % list(range(IMAGES))))
    assert said.code == 5 and place.done() == 0, said.text
    assert place.annotate().code == 0
    place.whole()
    return "exit 5, nothing is written; with the specialist mended, all was done"


ROWS = (
    power_off,
    terminated,
    interrupted,
    suspended,
    two_drivers,
    two_recipes,
    out_of_memory,
    one_too_large,
    defect_on_one,
    defect_on_all,
)
