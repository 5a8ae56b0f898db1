"""A task with few labels: the trained student fine-tuned on them, beside a model of the same size that starts from nothing.

FLD-5B leaves out a task that has too few labels, and later fine-tunes the model that was trained on the rest
(arXiv 2311.06242, section 4.3). Here the task is REGION_TO_DESCRIPTION on target scenes of a seed of their own: `--labelled`
images have true descriptions, all others are held out and measure. Both models take the same steps over the same
labels, once with the trained student's weights and once with random ones; the shipped start is a third.
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
from data_engine.quality.captions import region_agreement
from data_engine.quality.selected import Selected
from data_engine.quality.triplets import descriptions_by_image
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.scenes.attributes import Reader
from data_engine.scenes.scene import SOURCE
from data_engine.storage import local_path
from data_engine.trainer import Learn
from pipelines.annotate import annotate
from pipelines.recipe_files import find_recipe
from specialists.florence2.student import Student

TASK = "REGION_TO_DESCRIPTION"
SEED = 900
"""Of the scenes of this task; no cell of the other experiment draws it."""


def sparse(options: argparse.Namespace, scenes: Callable[..., Dataset], say: Callable[[str], None]) -> None:
    """Train and measure each start; a line of sparse.jsonl and a row of a Markdown table per start."""
    dataset = scenes(options, SEED, options.images, f"sparse-{options.images}")
    share = held_out(dataset, options.labelled)
    section = find_recipe(options.recipe).refine
    assert section is not None
    shipped = str(section.student.args["start"])
    starts = {
        "trained student": options.start or last_student(options.folder),
        "shipped start": shipped,
        "nothing": None,
    }
    say(
        f"| start | {TASK}: exact | all true | labelled images | steps | seconds |\n|---|---|---|---|---|---|"
    )
    for name, start in starts.items():
        if name == "trained student" and start is None:
            say(f"| {name} | there is none: run a cell first, or give --start | | | | |")
            continue
        steps = options.steps or 300
        output = local_path(dataset.url) / "models" / f"{name.replace(' ', '-')}-{options.labelled}-{steps}"
        began = time.monotonic()
        # No early stop: it would look at labels beyond the few.
        student = Student(
            start=start,
            tasks=[TASK],
            resolution=192,
            steps=steps,
            patience=0,
            evaluations=0,
            threads=options.threads,
        )
        student.train(dataset, Learn((SOURCE,), None, share), output, None, lambda line: None)
        seconds = time.monotonic() - began
        source = f"described-{name.replace(' ', '-')}-{options.labelled}-{steps}"
        asked = {
            "model": str(output),
            "tasks": [TASK],
            "num_beams": 1,
            "max_new_tokens": 32,
            "sources": [SOURCE],
        }
        part = SpecialistPart(
            use="specialists.held_out:HeldOut",
            args={"use": "specialists.florence2:Florence2", "args": asked, "held_out": share},
            needs=[SOURCE],
            batch=32,
        )
        annotate(dataset, Recipe(name="sparse", specialists={source: part}), runner="inline")
        view = Selected(dataset, share, {})
        exact = region_agreement(view, source, SOURCE, "brief")
        true = descriptions_by_image(view, source, SOURCE, Reader().fitting)
        row = {"start": name, "labelled": options.labelled, "steps": steps, "exact": exact.same, "texts": exact.texts,
               "true": true.value, "seconds": seconds}  # fmt: skip
        with (options.folder / "sparse.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        say(
            f"| {name} | {exact.same:.3f} | {true.value:.3f} | {options.labelled} | {steps} | {seconds:.0f} |"
        )


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
