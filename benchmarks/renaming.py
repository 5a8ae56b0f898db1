"""OD's F1 with OD's own names, and under those that the model gives each box when it is asked about it (`rename`).

python benchmarks/renaming.py [scenes [model]]

Scenes of the world that the shipped Florence-2 knows, of a seed that it never saw; a box is right at IoU 0.5. `once`: after
`filters.nms:Nms`, which leaves one box of a name at a place.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa

from data_engine.annotation import AnnotationRows
from data_engine.class_names import ClassNames
from data_engine.image import Image
from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import PRETRAINING
from filters.nms import Nms
from specialists.florence2 import Florence2
from specialists.merge_rows import Row, pages
from specialists.merge_settings import MergeSettings
from specialists.merge_truth import Counts, matches

MODEL = Path(__file__).parents[1] / "specialists/weights/scenes-florence2"
SEED, BATCH = 990_077, 30


def things(table: pa.Table) -> dict[str, list[Row]]:
    """Regions with a class that hang on nothing, by image."""
    source = table["source"][0].as_py()
    found = pages(table, MergeSettings([source], ["-"], []))
    return {i: [r for r in p.rows if r.is_thing and r.granularity == "phrase"] for i, p in found.items()}


def f1(said: pa.Table, truth: dict[str, list[Row]]) -> float:
    counts, own = Counts(), things(said)
    for image, right in truth.items():
        rows = own.get(image, [])
        counts.said += len(rows)
        counts.truths += len(right)
        counts.right += matches(
            "region", [row.text or "" for row in rows], [row.box for row in rows], right, ClassNames()
        )
    return counts.f1


def main(count: int, model: str) -> None:
    images, truth = [], AnnotationRows("truth")
    for index in range(count):
        scene = make_scene(SEED, index, world=PRETRAINING)
        with PIL.Image.open(io.BytesIO(scene.jpeg())) as picture:
            images.append(Image(f"{index:032x}", np.asarray(picture.convert("RGB"))))
        truth.add(images[-1].image_id, scene.annotations)
    right = things(truth.table())
    print("| names by | F1 | F1, once |\n|---|---|---|")
    for name, tasks in (("OD", ["OD"]), ("REGION_TO_CATEGORY", ["OD", "REGION_TO_CATEGORY"])):
        asked = Florence2(
            model, tasks, num_beams=1, max_new_tokens=160, max_prompts_per_batch=64, rename=len(tasks) > 1
        )
        said = AnnotationRows("said")
        for first in range(0, count, BATCH):
            some = images[first : first + BATCH]
            for image, rows in zip(some, asked(some, None), strict=True):
                said.add(image.image_id, rows, (image.width, image.height))
        table = said.table()
        print(f"| {name} | {f1(table, right):.3f} | {f1(table.filter(Nms(iou=0.5)(table)), right):.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150, sys.argv[2] if len(sys.argv) > 2 else str(MODEL))
