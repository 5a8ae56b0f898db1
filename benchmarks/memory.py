"""Peak memory of ingest, of the driver and of each actor, as a data set grows from 1,000 to 20,000 images.

    python benchmarks/memory.py [--counts 1000 5000 20000]

For each count: draws that many scenes, then runs `fde ingest` and `fde annotate` (Ray, the shipped
detector) as a user would, and samples the resident memory of each process ten times a second. What
must hold is that the columns do not grow with the count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

from data_engine.scenes.write import make_scenes

RECIPE = """
name: detector-only
specialists:
  detector:
    use: specialists.detector:Detector
    args: {weights: package:specialists/weights/scenes-detector.safetensors}
    batch: 32
"""


def peaks(command: list[str]) -> dict[str, float]:
    """Run a command; the most memory (MiB) of its own process and of any Ray actor below it."""
    found: dict[str, float] = defaultdict(float)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            found["driver"] = max(found["driver"], _own(root))
            for child in root.children(recursive=True):
                title = " ".join(child.cmdline()[:1])
                if title.startswith("ray::UnitActor"):
                    found["actor"] = max(found["actor"], _own(child))
        except psutil.Error:
            pass
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return found


def _own(process: psutil.Process) -> float:
    # Without what is shared with other processes: Ray's object store is mapped into all of them.
    info = process.memory_info()
    return (info.rss - info.shared) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 20000])
    counts = sorted(parser.parse_args().counts)
    with tempfile.TemporaryDirectory() as folder:
        scenes, recipe = Path(folder) / "scenes", Path(folder) / "recipe.yaml"
        recipe.write_text(RECIPE)
        print(
            f"{'images':>8} {'ingest MiB':>11} {'driver MiB':>11} {'actor MiB':>10} {'annotate images/s':>18}"
        )
        for count in counts:
            make_scenes(scenes / str(count), count, seed=count, workers=2)
            dataset = str(Path(folder) / f"ds{count}")
            fde = [sys.executable, "-m", "pipelines"]
            ingest = peaks([*fde, "ingest", str(scenes / str(count)), dataset])
            started = time.monotonic()
            run = peaks([*fde, "annotate", dataset, "--recipe", str(recipe), "--runner", "ray"])
            rate = count / (time.monotonic() - started)
            print(
                f"{count:>8,} {ingest['driver']:>11.0f} {run['driver']:>11.0f} {run['actor']:>10.0f} {rate:>18.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
