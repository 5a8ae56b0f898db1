"""Cheap specialists that note each of their calls, and some that misbehave as real ones do."""

from __future__ import annotations

import os
import time

import numpy as np
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from specialists.noise import Noise

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
    """Each image's mean colour, as a text and a region; refuses one image in sixteen."""

    def __init__(self, pause: float = 0.0):
        self.pause = pause

    def __call__(self, images, said):
        note("looks", images)
        time.sleep(self.pause)
        return [self._one(image) for image in images]

    def _one(self, image):
        if image.image_id.startswith("0"):
            return ImageError("too_odd", f"its id is {image.image_id}")
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
        time.sleep(self.pause)
        return super().__call__(images, said)


class Counts:
    """How many statements it was given of each image, and the least of their ids: told if one is missing."""

    needs_pixels = False

    def __init__(self, pause: float = 0.0):
        self.pause = pause

    def __call__(self, images, said):
        note("counts", images)
        time.sleep(self.pause)
        answers = []
        for image in images:
            ids = said.filter(pc.equal(said["image_id"], image.image_id))["annotation_id"]
            least = pc.min(ids).as_py()
            answers.append([Annotation("text", f"{len(ids)} statements from {least}", "brief")])
        return answers
