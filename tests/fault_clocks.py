"""A clock that is wrong or jumps: the C library's, for one command, through a small library of our own.

Nothing but the time of day is moved, as on a real machine: clocks that only go forward are left alone, and files
are still dated by the system.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.fault_cluster import ROOT
from tests.fault_place import Place, SkipError

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *seconds;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("FDE_FAULT_CLOCK"), O_RDONLY);
    seconds = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME && seconds) now->tv_sec += *seconds;
    return result;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec here;
    clock_gettime(CLOCK_REALTIME, &here);
    now->tv_sec = here.tv_sec;
    now->tv_usec = here.tv_nsec / 1000;
    return 0;
}
"""

_YEAR = 365 * 24 * 3600


class Clock:
    """Off by some seconds, for processes that are started with `environment`; may be moved while they run."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            raise SkipError("no C compiler here")
        self.file = folder / "clock"
        self.move(0)
        library = folder / "clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(library), "-ldl"],
            input=_SOURCE.encode(),
            check=True,
        )
        self.environment = {**os.environ, "LD_PRELOAD": str(library), "FDE_FAULT_CLOCK": str(self.file)}
        year = subprocess.run(
            ["date", "+%Y"], env={**self.environment}, capture_output=True, text=True, check=True
        )
        assert year.stdout.strip() == time.strftime("%Y")

    def move(self, seconds: int) -> None:
        if self.file.exists():
            with self.file.open("r+b") as file:
                file.write(struct.pack("q", seconds))
        else:
            self.file.write_bytes(struct.pack("q", seconds))

    def now(self) -> str:
        return subprocess.run(
            ["date", "+%Y"], env=self.environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    def annotate(self, place: Place, recipe: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines", "annotate", str(place.dataset), "-r", str(recipe)]
        return subprocess.run(
            [*command, "--runner", "inline"], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )


def clock_ahead(place: Place) -> str:
    """a driver whose clock is a year ahead starts while another writes a shard"""
    clock = Clock(place.folder)
    half = place.dataset / ".tmp/half"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"PAR1 what another driver is just writing")
    clock.move(_YEAR)
    assert clock.now() == str(int(time.strftime("%Y")) + 1)
    done = clock.annotate(place, place.recipe)
    assert done.returncode == 0, done.stderr
    assert half.exists(), "the other's half-written shard was swept away"
    place.whole()
    assert place.annotate().code == 0
    return (
        "exit 0; the other's file is not taken for one that was left a year ago: its age is the file system's"
    )


def clock_behind(place: Place) -> str:
    """a driver's clock is a year behind"""
    clock = Clock(place.folder)
    clock.move(-_YEAR)
    done = clock.annotate(place, place.recipe)
    assert done.returncode == 0, done.stderr
    place.whole()
    again = place.annotate()
    assert "8 already there" in again.text or again.text.count("4 already there") == 2, again.text
    return "exit 0; a driver with the right clock finds all done: what counts is the fingerprint, not a time"


def clock_jumps(place: Place) -> str:
    """the clock jumps by hours, to and fro, all through a run"""
    clock = Clock(place.folder)
    ended = threading.Event()

    def jump() -> None:
        step = 0
        while not ended.wait(0.05):
            step += 1
            clock.move(3 * 3600 * (-1) ** step)

    thread = threading.Thread(target=jump)
    thread.start()
    done = clock.annotate(place, place.slow_recipe(0.04))
    ended.set()
    thread.join()
    assert done.returncode == 0, done.stderr
    place.whole()
    run = place.fde(
        "sql", place.dataset, "SELECT min(seconds) >= 0 AND max(seconds) < 600 AS sane FROM runs", "-f", "csv"
    )
    assert run.code == 0 and "true" in run.text.lower(), run.text
    return "exit 0; durations in the run record stay right, its `started` is as wrong as the clock was"


ROWS = (clock_ahead, clock_behind, clock_jumps)
