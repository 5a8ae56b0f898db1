"""Photos that people have drawn boxes in: AP of one detector at several input sizes, and of their fusions.

python benchmarks/photos.py PHOTOS WEIGHTS [size ...]

PHOTOS is a folder as `fde annotate` takes it, with COCO's instances.json; WEIGHTS any YOLO. Sizes are longer
sides in pixels that the model sees; each is a detector of its own (640 and 960).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.quality.detection import average_precision
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate


def recipe(weights: str, sizes: list[int]) -> Recipe:
    """A detector for each size, and two fusions of all of them. As in COCO's evaluation, no score is too low."""
    detectors = {
        f"yolo-{size}": SpecialistPart(
            use="specialists.detector:Detector",
            args={"weights": weights, "imgsz": size, "confidence": 0.001},
            batch=8,
        )
        for size in sizes
    }
    fusions = {
        method: SpecialistPart(
            use="specialists.fusion:Fusion",
            args={"detectors": list(detectors), "method": method},
            needs=list(detectors),
            batch=64,
        )
        for method in ("weighted", "agreement")
    }
    return Recipe(name="photos", specialists=detectors | fusions).check()


def figures(photos: Path, weights: Path, sizes: list[int], folder: Path) -> dict[str, tuple[float, float]]:
    """AP and AP50 of every detector and fusion, by name."""
    ingest(str(photos), str(folder))
    dataset = Dataset.open(str(folder))
    wanted = recipe(str(weights), sizes)
    annotate(dataset, wanted, runner="inline", reporter=Reporter(terminal=False))
    found = {name: average_precision(dataset, name, "human") for name in wanted.specialists}
    return {name: (quality.ap, quality.ap50) for name, quality in found.items()}


def main(photos: str, weights: str, *sizes: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = figures(
            Path(photos), Path(weights), [int(s) for s in sizes] or [640, 960], Path(folder) / "ds"
        )
    for name, (ap, ap50) in found.items():
        print(f"{name:<12} AP {ap:.4f}  AP50 {ap50:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
