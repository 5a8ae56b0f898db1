"""Train a small detector or segmenter from scratch on drawn scenes: those that the project ships, or your own.

The network and its loss are ultralytics' (AGPL-3.0, hence the file's name), a YOLO11 half as wide as
the smallest published one. The loop is this file's own, thirty lines instead of the library's trainer,
which would write plots and caches, look for fonts on the network and evaluate after every epoch.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.errors import RecipeError
from data_engine.scenes.scene import MIN_SIDE, UNSEEN_SEED, training_seed
from data_engine.scenes.world import PRETRAINING, WORLDS, World
from data_engine.scenes.write import GENERATOR
from data_engine.storage import storage_errors
from specialists.detector_card import write_card
from specialists.detector_checkpoint import Run, restore, store
from specialists.detector_quality import Quality, evaluate
from specialists.detector_scenes import MULTIPLE, Pictures, batches, draw, halved
from specialists.detector_weights import TASKS, save_weights, ultralytics
from specialists.training_arithmetic import training_arithmetic

log = logging.getLogger(__name__)

WIDTH = 0.125
"""YOLO11's width multiple; `n`, its smallest published size, has 0.25."""

_PEAK_RATE, _LAST_RATE, _WEIGHT_DECAY = 4e-3, 2e-5, 5e-4
_WARM_UP = 0.04  # share of the run
_MOSTLY_HALVED = 0.7
"""Share of the run in which most batches are halved in size: a quarter of the cost each."""

_HALVED = 0.85
"""How many of the batches are halved in that part. All of them would tie what is learnt to that size."""

_STORED_EVERY = 60.0  # seconds


def train(
    output: Path,
    task: str = "detect",
    minutes: float = 6.0,
    seed: int = 0,
    world: World = PRETRAINING,
    images: int = 3000,
    imgsz: int = 320,
    batch: int = 16,
    steps: int | None = None,
    workers: int = 1,
    threads: int | None = None,
    evaluate_on: int = 200,
) -> Quality:
    """Train for so many minutes, or exactly `steps` steps, write weights and model card, and measure them.

    - `output`: the weights' file, `.safetensors`; the card beside it ends with `.md`.
    - `task`: `detect` for boxes, `segment` for boxes and masks.
    - `images` scenes of `world` are drawn first, in `workers` processes; that does not count towards the
      minutes. `imgsz` is their longer side.
    - With `steps` the result depends on the arguments alone (and the machine's arithmetic).
    - `threads` is for PyTorch; one is best where other work shares the cores, since its threads wait
      for the slowest.

    In the first part of the run most pictures are halved in size, which is faster. Once a minute the
    state is stored beside the output, as `.partial`: a run that was killed goes on from there when it is
    started with the same arguments.

    Returns what `evaluate` says on `evaluate_on` unseen scenes of the world; that, what it says of the
    other world, and how the run went are also kept in the file's metadata, under `trained`. Raises
    RecipeError for unusable arguments and StorageError when `output` cannot be written.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise RecipeError(f"weights cannot be written to {output}", "give a name that ends with .safetensors")
    if task not in TASKS:
        raise RecipeError(f"there is no training for {task!r}", f"choose {' or '.join(TASKS)}")
    if imgsz % MULTIPLE or imgsz * 3 // 4 < MIN_SIDE:
        raise RecipeError(
            f"imgsz cannot be {imgsz}", f"use a multiple of {MULTIPLE}, from 128 on: 320 for example"
        )
    if min(batch, images // 4, evaluate_on) < 1 or (minutes <= 0 if steps is None else steps < 1):
        raise RecipeError(
            "images must be at least 4, and batch, minutes (or steps) and evaluate_on more than 0",
            "correct the arguments",
        )
    package = ultralytics()  # before any other import of it: it must keep to itself
    import torch

    recipe = {
        "world": world.name,
        "generator": GENERATOR,
        "images": images,
        "scenes_seed": training_seed(seed),
        "seed": seed,
        "batch": batch,
        "length": f"{minutes:g} minutes" if steps is None else f"{steps} steps",
    }
    partial = output.with_name(output.name + ".partial")
    with storage_errors(str(output)):  # before all the work, not after it
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(output))
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    sets = draw(images, seed, imgsz, workers, world, masks=task == "segment")
    with training_arithmetic(threads):
        run = _start(_network(task, world.class_names, seed))
        used = torch.get_num_threads()
        _fit(run, sets, minutes * 60, steps, batch, seed, partial, {**recipe, "task": task, "imgsz": imgsz})
    model = run.average.ema
    facts = {
        **recipe,
        "steps": run.done,
        "epochs": round(run.done * batch / images, 1),
        "seconds": round(run.seconds, 1),
        "threads": used,
        "cpus": os.cpu_count(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "libraries": {"torch": torch.__version__, "ultralytics": package.__version__},
    }
    metadata = {
        "names": dict(enumerate(world.class_names)),
        "task": task,
        "imgsz": imgsz,
        "licence": "AGPL-3.0",
        "trained": facts,
    }
    with storage_errors(str(output)):
        save_weights(model, output, metadata)
    # What is measured is the file as written: its weights are rounded to half precision.
    unseen = evaluate(output, evaluate_on, UNSEEN_SEED, imgsz, list(WORLDS.values()))
    facts["unseen"] = {"seed": UNSEEN_SEED, **{name: asdict(quality) for name, quality in unseen.items()}}
    with storage_errors(str(output)):
        save_weights(model, output, metadata)
        write_card(output)
        partial.unlink(missing_ok=True)
    return unseen[world.name]


def _network(task: str, names: Sequence[str], seed: int) -> Any:
    import torch

    package = ultralytics()
    segment = task == "segment"
    torch.manual_seed(seed)
    plan = package.nn.tasks.yaml_model_load("yolo11n-seg.yaml" if segment else "yolo11n.yaml")
    plan = {"nc": len(names), "scale": "t", "scales": {"t": [0.5, WIDTH, 1024]}} | {
        key: plan[key] for key in ("backbone", "head")
    }
    kind = package.nn.tasks.SegmentationModel if segment else package.nn.tasks.DetectionModel
    model = kind(plan, ch=3, nc=len(names), verbose=False)
    # The loss reads its gains here, and that every thing has a mask of its own.
    model.args = package.cfg.get_cfg(overrides={"overlap_mask": False})
    model.names = dict(enumerate(names))
    return model


def _start(model: Any) -> Run:
    import torch

    # Channels last: the CPU's convolutions take a third less time so.
    model = model.to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]  # biases and normalisation
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=_PEAK_RATE,
        betas=(0.9, 0.99),
    )
    return Run(model, optimizer, ultralytics().utils.torch_utils.ModelEMA(model, decay=0.998, tau=200))


def _fit(
    run: Run,
    sets: Sequence[Pictures],
    seconds: float,
    steps: int | None,
    batch: int,
    seed: int,
    partial: Path,
    recipe: dict[str, Any],
) -> None:
    """Take the run from where it is, or where `partial` says it was, to its end."""
    import torch

    if restore(run, partial, recipe):
        log.info("going on from step %d, %.0f seconds", run.done, run.seconds)
    run.model.train()
    stored = run.seconds
    before = time.monotonic()
    draws = np.random.default_rng([seed, run.done, 1])
    for group in batches(sets, batch, np.random.default_rng([seed, run.done])):
        spent = run.seconds / seconds if steps is None else run.done / steps
        if spent >= 1 and run.done:
            break
        for parameters in run.optimizer.param_groups:
            parameters["lr"] = _rate(spent)
        if spent < _MOSTLY_HALVED and draws.random() < _HALVED:
            group = halved(group)
        group["img"] = group["img"].contiguous(memory_format=torch.channels_last)
        loss, items = run.model.loss(group)
        total = loss.sum() / len(group["img"])
        run.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 10.0)
        run.optimizer.step()
        run.average.update(run.model)
        run.done += 1
        now = time.monotonic()
        run.seconds, before = run.seconds + now - before, now
        if run.done % 50 == 0:
            shown = " ".join(f"{name} {float(value):.3f}" for name, value in items.items())
            log.info("step %d, %.0f %% of the run, %s", run.done, 100 * spent, shown)
        if run.seconds - stored > _STORED_EVERY:
            with storage_errors(str(partial)):
                store(run, partial, recipe)
            stored = run.seconds


def _rate(spent: float) -> float:
    """Learning rate when that share of the run is over: a linear warm-up, then a cosine."""
    if spent < _WARM_UP:
        return _PEAK_RATE * max(spent, 1e-3) / _WARM_UP
    along = min(1.0, (spent - _WARM_UP) / (1 - _WARM_UP))
    return _LAST_RATE + (_PEAK_RATE - _LAST_RATE) * (1 + math.cos(math.pi * along)) / 2
