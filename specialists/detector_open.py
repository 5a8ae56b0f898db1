"""Objects of any name: boxes for the names that the recipe lists, by YOLO-World or YOLOE (AGPL-3.0).

FLD-5B's object regions come from a detector with a closed list of classes (arXiv 2311.06242, section 4.1).
With a model that reads names, the recipe brings the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError
from data_engine.image import Image
from specialists.detector_prediction import Prediction, predictor, regions, settings
from specialists.detector_vocabulary import load_open, load_text_model, set_vocabulary, text_features

VERSION = 1  # raised too when what detector_prediction or detector_vocabulary says changes


class OpenDetector:
    """Regions of granularity `phrase`: name, box, score; best first. Masks too, where the model has them.

    - `weights`: a `.pt` of YOLO-World or YOLOE, or the name of one that ultralytics publishes, such as
      `yolov8s-worldv2.pt` or `yoloe-11s-seg.pt`, which is then downloaded once into the user's cache
      folder (not when YOLO_OFFLINE is set). A YOLOE without prompts (`-pf`) runs as
      `specialists.detector:Detector`.
    - `classes`: the names to look for. In YOLO-World a name's scores depend a little on the other names.
    - `confidence` and `iou`: as of `specialists.detector:Detector`, 0.25 and 0.7, the library's own. For
      YOLOE the library compares the boxes of all names, so that of two names for a thing one is left.
    - `imgsz`: longer side in pixels that the model sees; by default what it was trained with.
    - `max_boxes` per image. `device`: as torch names it; by default the GPU where there is one. `half`:
      float16 there.
    - `text_model` and `text_pretrained`: what reads the names, as `specialists.scorer:Scorer` takes its
      `model` and `pretrained`; by default the encoder that the model was trained with
      (`specialists/detector_vocabulary.py`), downloaded once to where huggingface_hub keeps its files.
      It reads them in lower case, and 77 tokens of each. It is asked once and let go.

    A `.pt` is a pickle, read with torch's `weights_only`, with only the library's layers allowed.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        weights: str,
        classes: list[str],
        confidence: float = 0.25,
        iou: float = 0.7,
        imgsz: int | None = None,
        max_boxes: int = 300,
        device: str | None = None,
        half: bool = False,
        text_model: str | None = None,
        text_pretrained: str | None = None,
    ) -> None:
        names = _names(classes)
        arguments = settings(confidence, iou, imgsz, max_boxes, device, half)
        self.model: Any = load_open(weights)
        network = self.model.model
        reader = load_text_model(network, text_model, text_pretrained, arguments["device"])
        set_vocabulary(network, text_features(network, reader, names)[None])
        network.names = self.names = dict(enumerate(names))
        self.prediction = Prediction(self.model, weights, predictor(self.model.task), arguments)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One list per image, boxes by falling score; a mask stands after its region."""
        made: list[list[Annotation]] = [[] for _ in images]
        for i, result in self.prediction(images):
            made[i] = list(regions(result, self.names))
        return made


def _names(classes: object) -> list[str]:
    """The classes, as a list of names. Raises RecipeError."""
    if not isinstance(classes, list | tuple) or not classes:
        raise RecipeError("`classes` names nothing to look for", "give a list of names")
    names: dict[str, str] = {}
    for name in classes:
        if not isinstance(name, str) or not name.strip():
            raise RecipeError(f"the class {name!r} is no name", "put it in quotes")
        if name.strip().casefold() in names:
            raise RecipeError(
                f"`classes` names {name!r} twice", "leave one out; names are read in lower case"
            )
        names[name.strip().casefold()] = name.strip()
    if len(names) == 999:
        # ultralytics takes 999 for a network that does not know its names, and fails on it.
        raise RecipeError("`classes` cannot have 999 names with ultralytics", "add one or leave one out")
    return list(names.values())
