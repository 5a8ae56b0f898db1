"""How well a student's likelihoods tell right statements from wrong ones, on scenes with known errors.

python benchmarks/likelihood.py [scenes [model]]

Scenes of the world that the shipped Florence-2 knows, seeds that it never saw; a noisy copy of their truth
(`specialists.noise`); `Likelihood` judges the copy. For each measure and error: the share of pairs of an unharmed
statement and one with that error in which the unharmed one is the more likely (AUC), and the medians of both.
"""

from __future__ import annotations

import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import AnnotationRows
from data_engine.image import Image
from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import PRETRAINING
from specialists.florence2.likelihood import Likelihood
from specialists.noise import Noise, NoiseLabels

MODEL = Path(__file__).parents[1] / "specialists/weights/scenes-florence2"
SEED, BATCH = 11, 16
NOISE = {
    "seed": 1,
    "sigma": 0.25,
    "rates": {
        "jittered": 0.15, "mislabelled": 0.15, "invented": 0.15, "merged": 0.05, "wrong_link": 0.15,
        "swapped": 0.1, "attribute_flipped": 0.2, "truncated": 0.1,
    },
}  # fmt: skip


def noisy_scenes(count: int) -> Iterator[tuple[list[Image], pa.Table, pa.Table]]:
    """Batches of images, their noisy rows, and what was done to which row."""
    noise = Noise(classes=PRETRAINING.class_names, **NOISE)  # type: ignore[arg-type]
    told = NoiseLabels("noisy", classes=PRETRAINING.class_names, **NOISE)
    for first in range(0, count, BATCH):
        images, truth, noisy, labels = (
            [],
            AnnotationRows("truth"),
            AnnotationRows("noisy"),
            AnnotationRows("noise"),
        )
        for index in range(first, min(first + BATCH, count)):
            scene = make_scene(SEED, index, world=PRETRAINING)
            with PIL.Image.open(io.BytesIO(scene.jpeg())) as picture:
                images.append(Image(f"{index:032x}", np.asarray(picture.convert("RGB"))))
            truth.add(images[-1].image_id, scene.annotations)
        for image, rows in zip(images, noise(images, truth.table()), strict=True):
            noisy.add(image.image_id, rows, (image.width, image.height))
        both = pa.concat_tables([truth.table(), noisy.table()])
        for image, rows in zip(images, told(images, both), strict=True):
            labels.add(image.image_id, rows)
        yield images, noisy.table(), labels.table()


def scores(count: int, model: str) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """By (measure, kind, granularity) of the judged and by error (`clean`: none) the likelihoods."""
    judge = Likelihood(model, ["noisy"])
    found: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for images, noisy, labels in noisy_scenes(count):
        changes = defaultdict(list)
        for parent, change in zip(labels["parent_id"].to_pylist(), labels["text"].to_pylist(), strict=True):
            changes[parent].append(change)
        about = {
            row["annotation_id"]: row
            for row in noisy.select(["annotation_id", "kind", "granularity"]).to_pylist()
        }
        for rows in judge(images, noisy):
            for row in rows:
                judged = about[row.parent]
                key = (row.granularity or "", judged["kind"], judged["granularity"] or "")
                errors = [change for change in changes[row.parent] if change != "reanchored"] or ["clean"]
                for error in errors:
                    found[key][error].append(row.score or 0.0)
    return found


def auc(right: NDArray[np.float64], wrong: NDArray[np.float64]) -> float:
    """Share of pairs whose right one is the higher; ties count half."""
    order = np.sort(wrong)
    below = np.searchsorted(order, right, "left") + np.searchsorted(order, right, "right")
    return float(below.mean() / 2 / len(wrong))


def main(count: int, model: str) -> None:
    for (measure, kind, granularity), by_error in sorted(scores(count, model).items()):
        right = np.array(by_error.pop("clean", []))
        for error, values in sorted(by_error.items()):
            wrong = np.array(values)
            print(
                f"{measure:<8} {kind:<7} {granularity:<14} {error:<18} AUC {auc(right, wrong):.3f}  medians "
                f"{np.median(right):.3f} of {len(right):,} right, {np.median(wrong):.3f} of {len(wrong):,} wrong"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, sys.argv[2] if len(sys.argv) > 2 else str(MODEL))
