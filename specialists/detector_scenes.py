"""Drawn scenes as training data of the toy detector: stored, read back, and dealt out in batches.

Scenes of seeds at and above `TRAINING_SEED` are for training, so every seed below it is unseen.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.image import decode
from data_engine.scenes.scene import training_seed
from data_engine.scenes.world import World
from data_engine.scenes.write import TRUTH, make_scenes

MULTIPLE = 64
"""Padded pictures are as large: twice the network's largest stride, so that halved ones fit it too."""

_CELL = 4
"""Masks are learnt on a grid this much coarser than the picture: the one of the network's prototypes."""

_GREY = 114  # ultralytics pads with this value when it predicts


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures of one size: `pixels` (n, 3, h, w) uint8; for each its boxes (m, 5): class, then centre
    x, centre y, width and height as shares of the padded picture; and, for a segmenter, its masks
    (m, h / 4, w / 4) uint8: how much of each cell the thing covers, of 255."""

    pixels: np.ndarray
    boxes: Sequence[np.ndarray]
    masks: Sequence[np.ndarray] | None


def draw(images: int, seed: int, imgsz: int, workers: int, world: World, masks: bool) -> list[Pictures]:
    """Scenes of three shapes, read back from their files so that JPEG's traces are learnt too.

    Half of them are `imgsz` pixels wide and three quarters as high; the others are upright or square.
    About 0.3 MB each at 320 pixels, and a tenth more with masks.
    """
    short = imgsz * 3 // 4
    quarter = images // 4
    sets = []
    start = 0
    for size, count in (
        ((imgsz, short), images - 2 * quarter),
        ((short, imgsz), quarter),
        ((imgsz, imgsz), quarter),
    ):
        with tempfile.TemporaryDirectory(prefix="fde-scenes-") as temporary:
            folder = Path(temporary)
            make_scenes(folder, count, training_seed(seed), size, start, workers, world)
            sets.append(_read(folder, world.class_names, masks))
        start += count
    return sets


def _read(folder: Path, names: Sequence[str], masks: bool) -> Pictures:
    """A folder of scenes of one size, padded alike on both sides as ultralytics does when it predicts."""
    with (folder / TRUTH).open(encoding="utf-8") as file:
        count = sum(1 for _ in file)
        file.seek(0)
        first = json.loads(next(file))
        file.seek(0)
        size = np.array([first["width"], first["height"]])
        padded = -(-size // MULTIPLE) * MULTIPLE
        before = (padded - size) // 2
        pixels = np.full((count, 3, padded[1], padded[0]), _GREY, dtype=np.uint8)
        inside = pixels[:, :, before[1] : before[1] + size[1], before[0] : before[0] + size[0]]
        boxes: list[np.ndarray] = []
        covers: list[np.ndarray] = []
        for i, line in enumerate(file):
            truth = json.loads(line)
            inside[i] = decode((folder / truth["file"]).read_bytes()).transpose(2, 0, 1)
            rows = truth["annotations"]
            things = {
                at: (names.index(a["text"]), *a["box"])
                for at, a in enumerate(rows)
                if a["kind"] == "region" and a.get("granularity") == "phrase"
            }
            found = np.array(list(things.values()), dtype=np.float32).reshape(-1, 5)
            low, high = found[:, 1:3] + before, found[:, 3:5] + before
            shares = np.concatenate([found[:, :1], (low + high) / 2 / padded, (high - low) / padded], axis=1)
            boxes.append(shares.astype(np.float32))
            if masks:
                rles = {a["parent"]: a["mask"] for a in rows if "mask" in a and a["parent"] in things}
                covers.append(_covered([rles[at] for at in things], before, padded))
    return Pictures(pixels, boxes, covers if masks else None)


def _covered(rles: Sequence[dict[str, Any]], before: np.ndarray, padded: np.ndarray) -> np.ndarray:
    """Masks on the prototypes' grid. Shares of cells tell a contour more finely than yes and no would."""
    from pycocotools import mask as coco

    across, down = (padded // _CELL).tolist()
    full = np.zeros((len(rles), down, _CELL, across, _CELL), dtype=np.uint8)
    flat = full.reshape(len(rles), down * _CELL, across * _CELL)
    for i, rle in enumerate(rles):
        height, width = rle["size"]
        flat[i, before[1] : before[1] + height, before[0] : before[0] + width] = coco.decode(rle)
    share: np.ndarray = full.sum(axis=(2, 4), dtype=np.uint16) * 255 // _CELL**2
    return share.astype(np.uint8)


def batches(sets: Sequence[Pictures], size: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Endless batches in the form that ultralytics' loss takes; one epoch after the other, shuffled.

    `img` (b, 3, h, w) in 0..1, `cls` (t, 1) and `bboxes` (t, 4) of all its things together, `batch_idx` (t,)
    the picture of each, and `masks` (t, h / 4, w / 4) in 0..1 where there are any.
    """
    import torch

    while True:
        parts = [
            (pictures, order[i : i + size])
            for pictures in sets
            for order in [rng.permutation(len(pictures.boxes))]
            for i in range(0, len(order), size)
        ]
        for at in rng.permutation(len(parts)):
            pictures, chosen = parts[at]
            images = torch.from_numpy(pictures.pixels[chosen]).float() / 255
            mirrored = rng.random(len(chosen)) < 0.5
            flips = torch.from_numpy(mirrored)
            images[flips] = images[flips].flip(-1)
            # Light and its tint vary between scenes' colours and what a camera or another encoder makes of them.
            gain = rng.uniform(0.8, 1.2, (len(chosen), 1, 1, 1)) * rng.uniform(
                0.94, 1.06, (len(chosen), 3, 1, 1)
            )
            images = (images * torch.from_numpy(gain.astype(np.float32))).clamp_(0, 1)
            boxes = [pictures.boxes[i].copy() for i in chosen]
            for i in np.flatnonzero(mirrored):
                boxes[i][:, 1] = 1 - boxes[i][:, 1]
            rows = torch.from_numpy(np.concatenate(boxes))
            owner = torch.from_numpy(np.repeat(np.arange(len(boxes)), [len(b) for b in boxes]))
            batch = {"img": images, "batch_idx": owner.float(), "cls": rows[:, :1], "bboxes": rows[:, 1:]}
            if pictures.masks is not None:
                covers = [pictures.masks[i] for i in chosen]
                for i in np.flatnonzero(mirrored):
                    covers[i] = covers[i][..., ::-1]
                batch["masks"] = torch.from_numpy(np.concatenate(covers)).float() / 255
            yield batch


def halved(batch: dict[str, Any]) -> dict[str, Any]:
    """The same pictures and masks at half the width and height; boxes are shares, and stay."""
    from torch.nn.functional import avg_pool2d

    small = {**batch, "img": avg_pool2d(batch["img"], 2)}
    if "masks" in batch:
        small["masks"] = avg_pool2d(batch["masks"][:, None], 2)[:, 0]
    return small
