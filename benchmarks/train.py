"""What a step of a student's training costs: tokens and images per second, memory, share of the matrix rate.

    python benchmarks/train.py [--preset base] [--batch 32] [--steps 300] [--side 768] ...

Draws some scenes, makes a model from nothing (random weights cost what trained ones do) and trains it through the
very loop of `specialists.florence2.student`, reading included, on a GPU where there is one. The matrix rate is
that of large square products in the same precision, measured first; operations of a step are counted by PyTorch's
own counter, which counts products and attention, forwards and backwards, and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.scenes.write import make_scenes
from data_engine.trainer import Learn
from specialists.florence2.shared_steps import Team
from specialists.florence2.student import Student
from specialists.florence2.training.presets import PRESETS
from specialists.florence2.training.run import begin
from specialists.training_arithmetic import training_arithmetic

SCENES, UNSEEN = 256, 77


def say(what: str, began: float = time.monotonic()) -> None:
    """Progress, on stderr: seconds since the start, so that it shows what of the benchmark is not the training."""
    print(f"{time.monotonic() - began:5.0f} s  {what}", file=sys.stderr, flush=True)


def matrix_rate(device: Any, dtype: Any, size: int) -> float:
    """Operations per second of `size` x `size` products, the best of five."""
    import torch

    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):  # the first one loads what it needs
        _wait(device)
        started = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="toy", choices=PRESETS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--side", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--readers", type=int, default=1)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: argparse.Namespace, folder: Path) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from specialists.florence2.training.loop import Loop
    from specialists.florence2.training.prefetch import prefetched
    from specialists.florence2.training.reader import Wanted, reader

    say(f"drawing {SCENES} scenes")
    make_scenes(folder / "scenes", SCENES, UNSEEN)
    ingest(str(folder / "scenes"), str(folder / "dataset"), shard_size=64)
    settings = Student(
        model=options.preset, resolution=options.side, steps=options.steps + options.warm_up + 1,
        batch=options.batch, prompts=options.prompts, precision=options.precision,
        checkpointing=options.checkpointing, readers=options.readers, threads=options.threads,
        locating=options.preset == "toy", warm_up=0.5,
    )  # fmt: skip
    say("reading what they say")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    job = begin(
        settings, Dataset.open(str(folder / "dataset")), Learn(("truth",), None, 0.0), folder / "s", None
    )
    with training_arithmetic(options.threads):
        say(f"making a model of size {options.preset}")
        loop = Loop(job, Team(device=device))
        dtype = loop.forward.dtype
        say(f"measuring matrix products on {device}")
        rate = matrix_rate(device, dtype, 8192 if device.type == "cuda" else 1024)
        side = options.side or loop.network.side
        wanted = (Wanted(step, side) for step in itertools.count())
        steps = prefetched(reader, loop.reading(), wanted, options.readers)
        say(f"starting {options.readers} readers")
        made = next(steps)
        say("the first step, whose operations are counted")
        with FlopCounterMode(display=False) as counter:
            loop.take_step(made, 0.5)
        operations = counter.get_total_flops()
        say(f"{options.warm_up} steps to warm up")
        for _ in range(options.warm_up):
            loop.take_step(next(steps), 0.5)
        _wait(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        say(f"{options.steps} steps")
        tokens = images = waited = 0.0
        started = time.perf_counter()
        for _ in range(options.steps):
            asked = time.perf_counter()
            made = next(steps)
            waited += time.perf_counter() - asked
            loop.take_step(made, 0.5)
            tokens += sum(len(ids) for batch in made.batches for ids in (*batch.prompts, *batch.answers))
            images += sum(len(batch.pixels) for batch in made.batches)
        _wait(device)
        seconds = time.perf_counter() - started
        steps.close()  # type: ignore[attr-defined]
    parameters = sum(p.numel() for p in loop.network.model.parameters())
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {os.cpu_count()} cores"
    memory = (
        torch.cuda.max_memory_allocated() / 2**30
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    print({k: v for k, v in asdict(settings).items() if k in ("model", "batch", "prompts", "checkpointing")})
    print(
        f"{name}; {parameters / 1e6:.1f} million parameters, {side} pixels, {str(dtype).removeprefix('torch.')}"
    )
    print(
        f"{options.steps} steps in {seconds:.1f} s, of which {waited:.1f} s were spent waiting for pictures"
    )
    print(
        f"{tokens / seconds:,.0f} tokens/s of prompts and answers, {images / seconds:.1f} images/s, {memory:.2f} GiB"
    )
    per_second = operations * options.steps / seconds
    print(
        f"{operations / 1e9:,.1f} billion operations a step; {per_second / 1e12:.3f} of {rate / 1e12:.3f} "
        f"trillion a second that large products reach: {per_second / rate:.1%}"
    )


if __name__ == "__main__":
    main()
