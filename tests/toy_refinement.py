"""A trainer, a student and a merge that take a second, to run rounds of refinement with.

The student knows the truth (its recipe part needs it) and says of each image a share of it that its training
settled: so what a round must come to is known.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.quality.selected import Labels, Selected

VERSION = 1


class ToyTrainer:
    """Writes what it was asked and how much it was given to learn from; `share` is how much its student knows
    of the truth, by round. Beside the data set it counts its trainings; the first `dies` end with the process."""

    def __init__(self, share: list[float], dies: int = 0, start: str | None = None):
        self.share, self.dies = share, dies

    def train(self, dataset, learn, output, start, say):
        view = Selected(
            dataset, learn.held_out, {"learn": Labels(learn.sources, learn.verdicts)}, held_out=False
        )
        rows = sum(view.annotations("learn", shard, ["annotation_id"]).num_rows for shard in dataset.shards)
        output.mkdir(parents=True, exist_ok=True)
        trainings = Path(dataset.url).parent / "trainings"
        count = len(list(trainings.iterdir()))
        (trainings / str(count)).touch()
        if count < self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        number = 0 if start is None else json.loads((start / "training.json").read_text())["round"]
        say(f"{rows} statements")
        facts = {"round": number + 1, "share": self.share[number], "rows": rows, "sources": learn.sources}
        (output / "training.json").write_text(json.dumps(facts))


class ToyStudent:
    """Says the truth of the first `share` of each image's things and captions, and of the others nothing."""

    needs_pixels = False

    def __init__(self, model: str, sources: list[str] | None = None):
        folder = Path(model)
        self.share = json.loads((folder / "training.json").read_text())["share"] if folder.is_dir() else 0.0

    def __call__(self, images, said):
        answers = []
        for image in images:
            rows = said.filter(pc.equal(said["image_id"], image.image_id)).to_pylist()
            answers.append(_copied(rows, self.share))
        return answers


class ToyMerge:
    """Takes the student's statements, or those of the originals: whichever it is to `prefer`, all but what it
    `loses`: masks, or texts of a granularity."""

    needs_pixels = False

    def __init__(
        self, originals: list[str], student: str | list[str], prefer: str = "student", loses: str = ""
    ):
        self.originals, self.prefer, self.loses = originals, prefer, loses
        self.student, *self.grounded = [student] if isinstance(student, str) else student

    def __call__(self, images, said):
        answers = []
        for image in images:
            rows = said.filter(pc.equal(said["image_id"], image.image_id)).to_pylist()
            rows = [row for row in rows if self.loses not in (row["granularity"], row["mask"] and "mask")]
            mine = [row for row in rows if row["source"] == self.student]
            theirs = [row for row in rows if row["source"] in self.originals]
            answers.append(_copied(mine if self.prefer == "student" else theirs, 1.0))
        return answers


def toy_calibration(dataset, truth, originals, student, doubt, held_out, verdicts, prefer="student"):
    """Chooses nothing, in the way that a calibration does."""
    return {"prefer": prefer}


def _copied(rows, share):
    """The first `share` of rows of each kind that hang on nothing, with all that hangs on them."""
    made: dict[str, Annotation] = {}
    answer = []
    for kind in ("text", "region"):
        roots = [row for row in rows if row["kind"] == kind and row["parent_id"] is None]
        kept = {row["annotation_id"] for row in roots[: round(share * len(roots))]}
        for row in rows:
            if row["annotation_id"] in kept or row["parent_id"] in made:
                if row["annotation_id"] in made:
                    continue
                made[row["annotation_id"]] = one = Annotation(
                    row["kind"],
                    row["text"],
                    row["granularity"],
                    made.get(row["parent_id"]),
                    None if row["span"] is None else tuple(row["span"]),
                    row["box"],
                    mask=row["mask"],
                    score=row["score"],
                )
                answer.append(one)
    return answer
