"""Cheap specialists that note each of their calls, and some that misbehave as real ones do."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from data_engine.image import decode
from specialists.noise import Noise
from tests.picture_files import png
from tests.toy_sources import number_of

VERSION = 1

JOURNAL = "FDE_FAULT_JOURNAL"
"""Names a file to which each call adds a line: specialist, first image, how many images."""


def note(name: str, images) -> None:
    if JOURNAL in os.environ:
        line = f"{name} {images[0].image_id} {len(images)}\n".encode()
        file = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line)  # in one write: lines of several processes do not mix
        os.close(file)


class Looks:
    """Each image's mean colour, as a text and a region; refuses one image in sixteen. `pause` is per image."""

    def __init__(self, pause: float = 0.0):
        self.pause = pause

    def __call__(self, images, said):
        note("looks", images)
        time.sleep(self.pause * len(images))
        return [self._one(image) for image in images]

    def _one(self, image):
        if image.image_id.startswith("0"):
            raise ImageError("too_odd", f"its id is {image.image_id}")
        red, green, blue = image.pixels.reshape(-1, 3).mean(axis=0)
        box = (0, 0, image.width, image.height)
        return [
            Annotation("text", f"red {red:.1f}, green {green:.1f}, blue {blue:.1f}", "brief"),
            Annotation("region", "image", "phrase", box=box, score=float(np.clip(red / 255, 0, 1))),
        ]


class Distorts(Noise):
    """The noise specialist, slowed down."""

    def __init__(self, pause: float = 0.0, rates=None, classes=()):
        super().__init__(rates=rates, classes=classes)
        self.pause = pause

    def __call__(self, images, said):
        note("distorts", images)
        time.sleep(self.pause * len(images))
        return super().__call__(images, said)


class Counts:
    """How many statements it was given of each image, and the least of their ids: told if one is missing."""

    needs_pixels = False

    def __init__(self, pause: float = 0.0):
        self.pause = pause

    def __call__(self, images, said):
        note("counts", images)
        time.sleep(self.pause * len(images))
        answers = []
        for image in images:
            ids = said.filter(pc.equal(said["image_id"], image.image_id))["annotation_id"]
            least = pc.min(ids).as_py()
            answers.append([Annotation("text", f"{len(ids)} statements from {least}", "brief")])
        return answers


class Unhappy:
    """Looks, but in a process that meets with something on images whose number is in `images`.

    `how`: raise, segfault, kill, exit, hang. With a `mark`, a file, only until that file is there, which it makes.
    """

    def __init__(self, how: str, images=(), mark: str = ""):
        self.how = how
        self.numbers = set(images)
        self.mark = Path(mark) if mark else None
        self.looks = Looks()

    def __call__(self, images, said):
        met = [image for image in images if number_of(image.pixels) in self.numbers]
        if met and (self.mark is None or not self.mark.exists()):
            if self.mark is not None:
                self.mark.touch()
            self._meet()
        return self.looks(images, said)

    def _meet(self):
        match self.how:
            case "raise":
                raise KeyError("a defect in the specialist")
            case "segfault":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(3600)


class Hungry:
    """Looks, with `mib` of memory per image, in a process that may take `limit` MiB more than it has meanwhile.

    Memory is really asked for and really refused; images whose number is in `images` take ten times as much.
    """

    def __init__(self, mib: int, limit: int, images=()):
        self.mib = mib
        self.limit = limit
        self.numbers = set(images)
        self.looks = Looks()

    def __call__(self, images, said):
        wanted = sum(self.mib * (10 if number_of(image.pixels) in self.numbers else 1) for image in images)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (pages * resource.getpagesize() + (self.limit << 20), before[1])
        )
        try:
            np.ones(wanted << 20, np.uint8)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        return self.looks(images, said)


class Crowded:
    """Looks, in a process that may open no further file once it is loaded."""

    def __init__(self):
        decode(png(1))  # what decoding imports must have been imported: Python could not read it then
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        self.looks = Looks()

    def __call__(self, images, said):
        return self.looks(images, said)
