"""Train a small detector from scratch on drawn scenes: the one that the project ships, or one of your own.

The network and its loss are ultralytics' (AGPL-3.0, hence the file's name), a YOLO11 an eighth as wide
as the full one. The loop is this file's own, thirty lines instead of the library's trainer, which would
write checkpoints, plots and caches, look for fonts on the network and evaluate after every epoch.

Training scenes come from seeds at and above `TRAINING_SEED`, so every seed below it is unseen.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from data_engine.errors import RecipeError
from data_engine.scenes.scene import MIN_SIDE, make_scene
from data_engine.scenes.world import CLASS_NAMES
from data_engine.scenes.write import TRUTH, make_scenes
from data_engine.storage import storage_errors

log = logging.getLogger(__name__)

TRAINING_SEED = 1_000_000
"""Scenes of this seed and those above are for training."""

UNSEEN_SEED = 0
"""Scenes of this seed measure the result."""

WIDTH = 0.125
"""YOLO11's width multiple; `n`, its smallest published size, has 0.25."""

_GREY = 114  # ultralytics pads with this value when it predicts
_MULTIPLE = 64  # twice the network's largest stride, so that halved pictures fit it too
_PEAK_RATE, _LAST_RATE, _WEIGHT_DECAY = 4e-3, 2e-5, 5e-4
_WARM_UP = 0.04  # share of the run
_MOSTLY_HALVED = 0.7
"""Share of the run in which most batches are halved in size: a quarter of the cost each."""

_HALVED = 0.85
"""How many of the batches are halved in that part. All of them would tie what is learnt to that size."""


@dataclass(frozen=True)
class Quality:
    """COCO average precision on `images` scenes; `per_class` is map50 of each class that occurs."""

    map50: float
    map50_95: float
    images: int
    per_class: dict[str, float]


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Pictures of one size: `pixels` (n, 3, h, w) uint8, and of each its boxes (m, 5): class, then
    centre x, centre y, width and height as shares of the padded picture."""

    pixels: np.ndarray
    boxes: Sequence[np.ndarray]


def train(
    output: Path,
    minutes: float = 6.0,
    seed: int = 0,
    images: int = 3000,
    imgsz: int = 320,
    batch: int = 16,
    steps: int | None = None,
    workers: int = 1,
    threads: int | None = None,
    evaluate_on: int = 200,
) -> Quality:
    """Train for so many minutes, or exactly `steps` steps, write the weights to `output` and measure them.

    `images` scenes are drawn first, in `workers` processes, half of them `imgsz` pixels wide and three
    quarters as high, the others upright or square; drawing does not count towards the minutes. With
    `steps` the result depends on the arguments alone (and the machine's arithmetic). `threads` is for
    PyTorch; one is best where other work shares the cores, since its threads wait for the slowest.
    In the first part of the run most pictures are halved in size, which is faster.

    Returns what `evaluate` says on `evaluate_on` unseen scenes; that, the number of steps and the seconds
    are also kept in the file's metadata, under `trained`. Raises RecipeError for unusable arguments and
    StorageError when `output` cannot be written.
    """
    if imgsz % _MULTIPLE or imgsz * 3 // 4 < MIN_SIDE:
        raise RecipeError(
            f"imgsz cannot be {imgsz}", f"use a multiple of {_MULTIPLE}, from 128 on: 320 for example"
        )
    if min(batch, images // 4, evaluate_on) < 1 or (minutes <= 0 if steps is None else steps < 1):
        raise RecipeError(
            "images must be at least 4, and batch, minutes (or steps) and evaluate_on more than 0",
            "correct the arguments",
        )
    from specialists.detector_weights import load_weights, save_weights, ultralytics

    ultralytics()  # before any other import of it: it must keep to itself
    sets = _draw(images, seed, imgsz, workers)
    with _arithmetic(threads):
        model, trained = _fit(sets, minutes * 60, steps, batch, seed)
    facts = {
        "data": f"{images} drawn scenes, seed {TRAINING_SEED + seed}",
        "seed": seed,
        "batch": batch,
        **trained,
    }
    metadata = {
        "yaml": model.yaml,
        "names": dict(enumerate(CLASS_NAMES)),
        "task": "detect",
        "imgsz": imgsz,
        "trained": facts,
    }
    output = Path(output)
    with storage_errors(str(output)):
        save_weights(model, output, metadata)
    # What is measured is the file as written: its weights are rounded to half precision.
    quality = evaluate(load_weights(output), evaluate_on, seed=UNSEEN_SEED, imgsz=imgsz)
    facts["unseen"] = {"seed": UNSEEN_SEED, **asdict(quality)}
    with storage_errors(str(output)):
        save_weights(model, output, metadata)
    return quality


def evaluate(detector: Any, count: int = 200, seed: int = UNSEEN_SEED, imgsz: int = 320) -> Quality:
    """COCO average precision of an `ultralytics.YOLO` on `count` scenes of a seed, 4:3, `imgsz` wide.

    Computed by pycocotools from the boxes of `predict`, so the library's own validator is not trusted
    with its own product.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for first in range(0, count, 16):
        indices = range(first, min(first + 16, count))
        scenes = [make_scene(seed, index, (imgsz, imgsz * 3 // 4)) for index in indices]
        # ultralytics takes arrays as OpenCV reads them: blue first.
        pictures = [np.ascontiguousarray(scene.pixels[..., ::-1]) for scene in scenes]
        results = detector.predict(pictures, imgsz=imgsz, conf=0.001, max_det=100, verbose=False)
        for index, scene, result in zip(indices, scenes, results, strict=True):
            for a in scene.annotations:
                if a.kind == "region" and a.granularity == "phrase" and a.box is not None:
                    x0, y0, x1, y1 = a.box
                    truth.append(
                        {
                            "id": len(truth) + 1,
                            "image_id": index,
                            "category_id": CLASS_NAMES.index(str(a.text)),
                            "bbox": [x0, y0, x1 - x0, y1 - y0],
                            "area": (x1 - x0) * (y1 - y0),
                            "iscrowd": 0,
                        }
                    )
            for (x0, y0, x1, y1), score, label in zip(
                result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True
            ):
                found.append(
                    {
                        "image_id": index,
                        "category_id": int(label),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "score": score,
                    }
                )
    if not found:
        return Quality(0.0, 0.0, count, {})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(count)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES)],
            "annotations": truth,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
    # precision: IoU threshold x recall x class x area range x detections; -1 where a class does not occur
    precision = judge.eval["precision"][:, :, :, 0, -1]

    def mean(values: np.ndarray) -> float:
        there = values[values > -1]
        return float(there.mean()) if there.size else -1.0

    per_class = {name: mean(precision[0, :, i]) for i, name in enumerate(CLASS_NAMES)}
    return Quality(
        map50=mean(precision[0]),
        map50_95=mean(precision),
        images=count,
        per_class={name: value for name, value in per_class.items() if value >= 0},
    )


def _draw(images: int, seed: int, imgsz: int, workers: int) -> list[_Pictures]:
    """Scenes of three shapes, read back from their files so that JPEG's traces are learnt too."""
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
            make_scenes(folder, count, TRAINING_SEED + seed, size, start, workers)
            sets.append(_read(folder))
        start += count
    return sets


def _read(folder: Path) -> _Pictures:
    """A folder of scenes of one size, padded alike on both sides as ultralytics does when it predicts."""
    lines = (folder / TRUTH).read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    size = np.array([first["width"], first["height"]])
    padded = -(-size // _MULTIPLE) * _MULTIPLE
    before = (padded - size) // 2
    pixels = np.full((len(lines), 3, padded[1], padded[0]), _GREY, dtype=np.uint8)
    inside = pixels[:, :, before[1] : before[1] + size[1], before[0] : before[0] + size[0]]
    boxes: list[np.ndarray] = []
    for i, line in enumerate(lines):
        truth = json.loads(line)
        with PIL.Image.open(folder / truth["file"]) as image:
            inside[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        rows = [
            (CLASS_NAMES.index(a["text"]), *a["box"])
            for a in truth["annotations"]
            if a["kind"] == "region" and a.get("granularity") == "phrase"
        ]
        found = np.array(rows, dtype=np.float32)
        low, high = found[:, 1:3] + before, found[:, 3:5] + before
        shares = np.concatenate([found[:, :1], (low + high) / 2 / padded, (high - low) / padded], axis=1)
        boxes.append(shares.astype(np.float32))
    return _Pictures(pixels, boxes)


def _batches(sets: Sequence[_Pictures], size: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Endless batches in the form that ultralytics' loss takes; one epoch after the other, shuffled."""
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
            boxes = [pictures.boxes[i].copy() for i in chosen]
            mirrored = rng.random(len(chosen)) < 0.5
            for i in np.flatnonzero(mirrored):
                boxes[i][:, 1] = 1 - boxes[i][:, 1]
            flips = torch.from_numpy(mirrored)
            images[flips] = images[flips].flip(-1)
            # Light and its tint vary between scenes' colours and what a camera or another encoder makes of them.
            gain = rng.uniform(0.8, 1.2, (len(chosen), 1, 1, 1)) * rng.uniform(
                0.94, 1.06, (len(chosen), 3, 1, 1)
            )
            images = (images * torch.from_numpy(gain.astype(np.float32))).clamp_(0, 1)
            rows = torch.from_numpy(np.concatenate(boxes))
            owner = torch.from_numpy(np.repeat(np.arange(len(boxes)), [len(b) for b in boxes]))
            yield {"img": images, "batch_idx": owner.float(), "cls": rows[:, 0], "bboxes": rows[:, 1:]}


def _network(seed: int) -> Any:
    import torch

    from specialists.detector_weights import ultralytics

    package = ultralytics()
    torch.manual_seed(seed)
    plan = package.nn.tasks.yaml_model_load("yolo11n.yaml")
    plan = {"nc": len(CLASS_NAMES), "scale": "t", "scales": {"t": [0.5, WIDTH, 1024]}} | {
        key: plan[key] for key in ("backbone", "head")
    }
    model = package.nn.tasks.DetectionModel(plan, ch=3, nc=len(CLASS_NAMES), verbose=False)
    model.args = package.cfg.get_cfg()  # the loss reads its gains here
    model.names = dict(enumerate(CLASS_NAMES))
    return model


@contextlib.contextmanager
def _arithmetic(threads: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)  # denormal numbers slow training on a CPU several times
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def _fit(
    sets: Sequence[_Pictures], seconds: float, steps: int | None, batch: int, seed: int
) -> tuple[Any, dict[str, Any]]:
    """The averaged model, and how it was trained."""
    import torch

    from specialists.detector_weights import ultralytics

    # Channels last: the CPU's convolutions take a third less time so.
    model = _network(seed).to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]  # biases and normalisation
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.99),
    )
    average = ultralytics().utils.torch_utils.ModelEMA(model, decay=0.998, tau=200)
    model.train()
    started = time.monotonic()
    done = 0
    draws = np.random.default_rng([seed, 1])
    for group in _batches(sets, batch, np.random.default_rng(seed)):
        spent = (time.monotonic() - started) / seconds if steps is None else done / steps
        if spent >= 1 and done:
            break
        rate = _rate(spent)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate
        images = group["img"]
        if spent < _MOSTLY_HALVED and draws.random() < _HALVED:
            images = torch.nn.functional.avg_pool2d(images, 2)
        group["img"] = images.contiguous(memory_format=torch.channels_last)
        loss, items = model.loss(group)
        total = loss.sum() / len(group["img"])
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        average.update(model)
        done += 1
        if done % 50 == 0:
            shown = " ".join(f"{name} {float(value):.3f}" for name, value in items.items())
            log.info("step %d, %.0f %% of the run, rate %.1e, %s", done, 100 * spent, rate, shown)
    there = sum(len(pictures.boxes) for pictures in sets)
    return average.ema, {
        "steps": done,
        "epochs": round(done * batch / there, 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def _rate(spent: float) -> float:
    """Learning rate when that share of the run is over: a linear warm-up, then a cosine."""
    if spent < _WARM_UP:
        return _PEAK_RATE * max(spent, 1e-3) / _WARM_UP
    along = min(1.0, (spent - _WARM_UP) / (1 - _WARM_UP))
    return _LAST_RATE + (_PEAK_RATE - _LAST_RATE) * (1 + math.cos(math.pi * along)) / 2
