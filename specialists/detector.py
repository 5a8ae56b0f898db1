"""Objects: boxes with a class name and a score, by any YOLO that ultralytics can run (AGPL-3.0).

FLD-5B's object regions are made this way: a detector trained on public sets, then a confidence
threshold and non-maximum suppression (arXiv 2311.06242, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.entry_point import did_you_mean
from data_engine.errors import ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.detector_prediction import Prediction, load_yolo, predictor, regions, settings
from specialists.detector_weights import TASKS

VERSION = 1  # raised too when what specialists.detector_prediction says changes


class Detector:
    """Regions of granularity `phrase`: class name, box, score; best first. Masks too, where the model has them.

    - `weights`: a `.safetensors` of this project, any file or folder that ultralytics can run (`.pt`,
      `.onnx`, `.torchscript`, ...), or the name of a model that it publishes, such as `yolo11n.pt`,
      which is then downloaded once into the user's cache folder (not when YOLO_OFFLINE is set).
    - `confidence` and `iou`: boxes below the one are left out, and so is the weaker of two of a class
      that overlap by more than the other; 0.25 and 0.7 are the library's own. `max_boxes` per image.
    - `imgsz`: longer side in pixels that the model sees; by default what it was trained with.
    - `device`: as torch names it; by default the GPU where there is one. `half`: float16 there.
    - `classes`: names of those wanted; by default all.

    A `.pt` is a pickle, which can name any code. It is read with torch's `weights_only`, with only the
    library's layers allowed; one that names anything else is refused. An exported file is a program for
    its runtime. Take either from a source that you trust; a `.safetensors` holds nothing that could run.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        weights: str,
        confidence: float = 0.25,
        iou: float = 0.7,
        imgsz: int | None = None,
        max_boxes: int = 300,
        device: str | None = None,
        half: bool = False,
        classes: list[str] | None = None,
    ) -> None:
        arguments = settings(confidence, iou, imgsz, max_boxes, device, half)
        self.model = load_yolo(weights)
        if self.model.task not in TASKS:
            raise ModelLoadError(
                f"{weights} is a model for {self.model.task!r}, not for detection",
                "give one that finds boxes",
            )
        self.prediction = Prediction(self.model, weights, predictor(self.model.task), arguments)
        self.names = self.prediction.names
        self.fixed = self.prediction.fixed
        if classes is not None:
            self.prediction.arguments["classes"] = [_index(name, self.names) for name in classes]

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One list per image, boxes by falling score; a mask stands after its region."""
        made: list[list[Annotation]] = [[] for _ in images]
        for i, result in self.prediction(images):
            made[i] = list(regions(result, self.names))
        return made


def _index(name: str, names: dict[int, str]) -> int:
    for index, known in names.items():
        if known.casefold() == name.casefold():
            return index
    raise RecipeError(
        f"the detector knows no class {name!r}{did_you_mean(name, list(names.values()))}", "correct `classes`"
    )
