"""Specialists that do little, and some that misbehave in a chosen way, to run the runner with."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from tests.toy_sources import number_of

VERSION = 1


class Numbers:
    """Says each picture's number, and a box. `pause` seconds per batch make a run long enough to kill.

    FDE_TEST_PAUSE=SECONDS:AFTER makes each batch after the first so many take longer, by the same fingerprint: a
    process that is to be killed is then surely there, however late its killer comes.
    """

    def __init__(self, pause: float = 0.0, word: str = "number"):
        self.pause = pause
        self.word = word
        self.batches = 0
        seconds, _, after = os.environ.get("FDE_TEST_PAUSE", "0:0").partition(":")
        self.longer, self.after = float(seconds), int(after)

    def __call__(self, images, said):
        self.batches += 1
        time.sleep(self.longer if self.longer and self.batches > self.after else self.pause)
        return [
            [
                text := Annotation("text", f"{self.word} {number_of(image.pixels)}", "brief", score=0.5),
                Annotation(
                    "phrase", self.word, parent=text, span=(0, len(self.word)), box=(1, 1, 9, 9), score=0.7
                ),
            ]
            for image in images
        ]


class Echo:
    """Repeats what was said, with the parent's id: shows that `said` holds these images' rows and no others."""

    def __call__(self, images, said):
        assert isinstance(said, pa.Table)
        texts = said.filter(pc.equal(said["kind"], "text"))
        answers = []
        for image in images:
            rows = texts.filter(pc.equal(texts["image_id"], image.image_id)).to_pylist()
            answers.append(
                [Annotation("text", "echo " + r["text"], "detailed", parent=r["annotation_id"]) for r in rows]
            )
        assert sum(map(len, answers)) == texts.num_rows
        return answers


class Fails:
    """Raises on pictures whose number is in `on`; `how` is error, image_error, memory, short, exit or hang."""

    def __init__(self, on: list[int], how: str = "error"):
        self.on = set(on)
        self.how = how

    def __call__(self, images, said):
        bad = [number for image in images if (number := number_of(image.pixels)) in self.on]
        if bad and self.how == "error":
            raise ValueError(f"cannot look at {bad[0]}")
        if bad and self.how == "image_error":
            raise ImageError("too_odd", f"number {bad[0]}")
        if bad and self.how == "short":
            return []
        if bad and self.how == "exit":
            os.kill(os.getpid(), signal.SIGKILL)
        if bad and self.how == "hang":
            time.sleep(3600)
        if self.how == "memory" and len(images) > 2:
            raise MemoryError("too many at once")
        return [[Annotation("text", f"number {number_of(image.pixels)}", "brief")] for image in images]


class DiesOnce:
    """Kills its process on the first `times` calls, counted in a folder that outlives it."""

    def __init__(self, folder: str, times: int = 1):
        self.folder = Path(folder)
        self.times = times

    def __call__(self, images, said):
        marks = len(list(self.folder.iterdir()))
        if marks < self.times:
            (self.folder / str(marks)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [[Annotation("text", f"number {number_of(image.pixels)}", "brief")] for image in images]


class CannotLoad:
    def __init__(self, weights: str):
        raise FileNotFoundError(f"no weights at {weights}")


class LoadsAloud(Numbers):
    def __init__(self) -> None:
        super().__init__()
        logging.getLogger("data_engine").info("loading")


class BadRows:
    """One good statement and several that cannot be stored, for each picture."""

    def __call__(self, images, said):
        nan = float("nan")
        return [
            [
                Annotation("text", "good", "brief"),
                Annotation("region", "nan", box=(nan, 0, 1, 1)),
                Annotation("region", "flat", box=(1, 1, 1, 5)),
                Annotation("verse", "no such kind"),
            ]
            for _ in images
        ]


class Sizes:
    """Says each image's size, without its pixels."""

    needs_pixels = False

    def __call__(self, images, said):
        assert not any(image.pixels.any() for image in images)
        return [[Annotation("text", f"{image.width} x {image.height}", "brief")] for image in images]


class Same:
    """Says the same of every image."""

    def __call__(self, images, said):
        return [[Annotation("text", "nothing new", "brief")] for _ in images]


class Surroundings:
    """Says what an environment variable holds, and of which process its own is a child: a node's, on Ray."""

    needs_pixels = False

    def __init__(self, variable: str, pause: float = 0.0):
        self.variable = variable
        self.pause = pause

    def __call__(self, images, said):
        time.sleep(self.pause)
        text = f"{os.environ.get(self.variable)} below {os.getppid()}"
        return [[Annotation("text", text, "brief")] for _ in images]
