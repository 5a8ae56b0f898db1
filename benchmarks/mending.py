"""Captions with flipped attributes before and after `specialists.florence2.mending`, on scenes of known truth.

python benchmarks/mending.py [scenes [model]]

Scenes of the world that the shipped Florence-2 knows, seeds that it never saw. A caption counts as true where every
noun phrase of it is true of its scene. For each granularity: the share of true captions before and after, how many were
changed, how many of those became true and how many true ones were spoilt.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image

from data_engine.annotation import AnnotationRows
from data_engine.image import Image
from data_engine.scenes.attributes import Reader
from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import PRETRAINING
from specialists.florence2.mending import Mended
from specialists.noise import Noise

MODEL = Path(__file__).parents[1] / "specialists/weights/scenes-florence2"
SEED, BATCH, RATE = 11, 16, 0.3
GRANULARITIES = ("brief", "detailed", "more_detailed")


def main(count: int, model: str) -> None:
    reader, truth, noisy = Reader(), AnnotationRows("truth"), AnnotationRows("noisy")
    images, things = [], {}
    for index in range(count):
        scene = make_scene(SEED, index, world=PRETRAINING)
        with PIL.Image.open(io.BytesIO(scene.jpeg())) as picture:
            images.append(Image(f"{index:032x}", np.asarray(picture.convert("RGB"))))
        truth.add(images[-1].image_id, scene.annotations)
        things[images[-1].image_id] = [
            row.text or "" for row in scene.annotations if row.kind == "region" and row.granularity == "brief"
        ]
    noise = Noise(classes=PRETRAINING.class_names, seed=1, rates={"attribute_flipped": RATE})
    for image, rows in zip(images, noise(images, truth.table()), strict=True):
        noisy.add(image.image_id, rows, (image.width, image.height))
    said = noisy.table()
    mend = Mended(model, ["noisy"])
    made = [rows for first in range(0, count, BATCH) for rows in mend(images[first : first + BATCH], said)]
    texts = [row for row in said.to_pylist() if row["kind"] == "text"]
    print("| captions | of | true before | true after | changed | became true | spoilt |")
    print("|---|---|---|---|---|---|---|")
    for granularity in GRANULARITIES:
        before = {row["image_id"]: row["text"] for row in texts if row["granularity"] == granularity}
        after = {
            image.image_id: row.text or ""
            for image, rows in zip(images, made, strict=True)
            for row in rows
            if row.granularity == granularity
        }
        was = {image: all(reader.judge(text, things[image])) for image, text in before.items()}
        now = {
            image: all(reader.judge(after.get(image, text), things[image])) for image, text in before.items()
        }
        gained, lost = (sum(a[image] > b[image] for image in was) for a, b in ((now, was), (was, now)))
        shares = (sum(told.values()) / len(was) for told in (was, now))
        cells = [len(was), *(f"{share:.3f}" for share in shares), len(after), gained, lost]
        print(f"| {granularity} | " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 96, sys.argv[2] if len(sys.argv) > 2 else str(MODEL))
