"""A task with few labels: the trained student fine-tuned on them, beside a model of the same size that starts from nothing.

FLD-5B leaves out a task that has too few labels, and later fine-tunes the model that was trained on the rest
(arXiv 2311.06242, section 4.3). Here the task is REFERRING_EXPRESSION_SEGMENTATION, which no student of a cell is taught, on
target scenes of a seed of their own: `--labelled` images have true masks of their phrases, all others are held out and
measure. Both models take the same steps over the same labels, once with the trained student's weights and once with
random ones; the shipped start, which knows the task from another world, is a third. `--task REGION_TO_DESCRIPTION` is
the same with true descriptions; of those the student has learnt noisy ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.held_out import is_held_out
from data_engine.quality.masks import iou_by_image
from data_engine.quality.selected import Selected
from data_engine.quality.shares import estimate
from data_engine.quality.triplets import descriptions_by_image
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.scenes.attributes import Reader
from data_engine.scenes.scene import SOURCE
from data_engine.storage import local_path
from data_engine.trainer import Learn
from pipelines.annotate import annotate
from pipelines.recipe_files import find_recipe
from specialists.florence2.student import Student

TASKS = {
    "REFERRING_EXPRESSION_SEGMENTATION": "masks of truth's phrases: mean IoU",
    "REGION_TO_DESCRIPTION": "descriptions: true",
}
"""Tasks with the measure of each."""

SEED = 900
"""Of the scenes of this task; no cell of the other experiment draws it."""


def sparse(options: argparse.Namespace, scenes: Callable[..., Dataset], say: Callable[[str], None]) -> None:
    """Train and measure each start; a line of sparse.jsonl and a row of a Markdown table per start."""
    dataset = scenes(options, SEED, options.images, f"sparse-{options.images}")
    share = held_out(dataset, options.labelled)
    measuring = sum(
        int(is_held_out(batch["image_id"], share).sum())
        for shard in dataset.shards
        for batch in dataset.image_batches(shard, 4096, ["image_id"])
    )
    section = find_recipe(options.recipe).refine
    assert section is not None
    shipped = str(section.student.args["start"])
    starts = {
        "trained student": options.start or last_student(options.folder),
        "shipped start": shipped,
        "nothing": None,
    }
    task = options.task
    say(
        f"| start | {TASKS[task]} | images that measure | labelled | steps | seconds |\n|---|---|---|---|---|---|"
    )
    for name, start in starts.items():
        if name == "trained student" and start is None:
            say(f"| {name} | there is none: run a cell first, or give --start | | | | |")
            continue
        steps = options.steps or 300
        cell = f"{task.lower()}-{name.replace(' ', '-')}-{options.labelled}-{steps}"
        output = local_path(dataset.url) / "models" / cell
        began = time.monotonic()
        # No early stop: it would look at labels beyond the few.
        student = Student(
            start=start,
            tasks=[task],
            resolution=192,
            steps=steps,
            patience=0,
            evaluations=0,
            threads=options.threads,
        )
        student.train(dataset, Learn((SOURCE,), None, share), output, None, lambda line: None)
        seconds = time.monotonic() - began
        asked = {
            "model": str(output),
            "tasks": [task],
            "num_beams": 1,
            "max_new_tokens": 128,
            "sources": [SOURCE],
        }
        part = SpecialistPart(
            use="specialists.held_out:HeldOut",
            args={"use": "specialists.florence2:Florence2", "args": asked, "held_out": share},
            needs=[SOURCE],
            batch=32,
        )
        annotate(dataset, Recipe(name="sparse", specialists={cell: part}), runner="inline")
        view = Selected(dataset, share, {})
        if task == "REGION_TO_DESCRIPTION":
            found = estimate(descriptions_by_image(view, cell, SOURCE, Reader().fitting))
        else:
            found = estimate(iou_by_image(view, cell, SOURCE, "phrase"))
        row = {"task": task, "measure": TASKS[task], "start": name, "labelled": options.labelled, "steps": steps,
               "value": found.value, "low": found.low, "high": found.high, "seconds": seconds}  # fmt: skip
        with (options.folder / "sparse.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        value = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
        say(f"| {name} | {value} | {measuring} | {options.labelled} | {steps} | {seconds:.0f} |")


def held_out(dataset: Dataset, labelled: int) -> float:
    """The share that holds out all images but so many."""
    ids = pa.concat_arrays(
        [batch["image_id"] for s in dataset.shards for batch in dataset.image_batches(s, 4096, ["image_id"])]
    )
    shares = np.linspace(0, 0.999, 1000)
    left = np.array([len(ids) - int(is_held_out(ids, share).sum()) for share in shares])
    return float(shares[np.abs(left - labelled).argmin()])


def last_student(folder: Path) -> str | None:
    """The last student of the first finished cell."""
    found = sorted(folder.glob("*-full/models/*/training.json"))
    return str(found[-1].parent) if found else None
