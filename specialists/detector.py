"""Objects: boxes with a class name and a score, by any YOLO that ultralytics can run (AGPL-3.0).

FLD-5B's object regions are made this way: a detector trained on public sets, then a confidence
threshold and non-maximum suppression (arXiv 2311.06242, section 4.1).

ultralytics letterboxes a batch of unlike shapes to full squares, but an image alone to the smallest
rectangle, so that the boxes of an image change with its neighbours. Here every image gets the smallest
rectangle, and images share a forward pass where that rectangle is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.entry_point import did_you_mean
from data_engine.errors import FdeError, ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.detector_weights import TASKS, load_weights, ultralytics
from specialists.pretrained import device_and_dtype

VERSION = 1

_MASKS_AT_ONCE = 16
"""Masks are as large as the image: 300 of a 12-megapixel one would fill 14 GB."""


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
        for name, value in (("confidence", confidence), ("iou", iou)):
            if not 0 <= value <= 1:
                raise RecipeError(f"{name} is {value}", "it must lie in 0..1")
        if max_boxes < 1 or (imgsz is not None and imgsz < 32):
            raise RecipeError("max_boxes must be at least 1 and imgsz at least 32", "raise them")
        ultralytics()
        place, _ = device_and_dtype(device, "float32")
        self.model = _load(weights)
        if self.model.task not in TASKS:
            raise ModelLoadError(
                f"{weights} is a model for {self.model.task!r}, not for detection",
                "give one that finds boxes",
            )
        self.arguments: dict[str, Any] = {
            "conf": confidence,
            "iou": iou,
            "max_det": max_boxes,
            "device": str(place),
            "quantize": 16 if half else None,
            "verbose": False,
            "save": False,
        }
        if imgsz is not None:
            self.arguments["imgsz"] = imgsz
        try:
            # The first prediction loads an exported file, and chooses the device.
            self._predict([np.full((64, 64, 3), 114, np.uint8)])
        except FdeError:
            raise
        except Exception as error:
            raise _not_loaded(weights, error) from error
        network = self.model.predictor.model
        self.names: dict[int, str] = {int(k): str(v) for k, v in network.names.items()}
        # An exported network may take one image of one size only.
        self.fixed = network.format != "pt" and not getattr(network, "dynamic", False)
        if classes is not None:
            self.arguments["classes"] = [_index(name, self.names) for name in classes]

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One list per image, boxes by falling score; a mask stands after its region."""
        made: list[list[Annotation]] = [[] for _ in images]
        for group in self._groups(images):
            # ultralytics takes arrays as OpenCV reads them: blue first.
            pictures = [np.ascontiguousarray(images[i].pixels[..., ::-1]) for i in group]
            for i, result in zip(group, self._predict(pictures), strict=True):
                made[i] = list(self._rows(result))
        return made

    def _predict(self, pictures: list[np.ndarray]) -> list[Any]:
        kind = _predictor(self.model.task)
        return list(self.model.predict(pictures, predictor=kind, batch=len(pictures), **self.arguments))

    def _groups(self, images: Sequence[Image]) -> Iterator[list[int]]:
        """Indices of the images that the model sees in one size."""
        if self.fixed:
            yield from ([i] for i in range(len(images)))
            return
        from ultralytics.data.augment import LetterBox

        predictor = self.model.predictor
        letterbox = LetterBox(predictor.imgsz, auto=True, stride=predictor.model.stride)
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            fit = letterbox.get_params({"img": image.pixels})
            width, height = fit["new_unpad"]
            shape = (height + fit["top"] + fit["bottom"], width + fit["left"] + fit["right"])
            groups.setdefault(shape, []).append(i)
        yield from groups.values()

    def _rows(self, result: Any) -> Iterator[Annotation]:
        boxes = result.boxes.data.float().cpu().numpy()
        for row, (x0, y0, x1, y1, score, index) in enumerate(boxes.tolist()):
            if x1 <= x0 or y1 <= y0:
                continue  # beyond the image's edge, and clipped to nothing
            box = (x0, y0, x1, y1)
            region = Annotation("region", self.names[int(index)], "phrase", box=box, score=min(score, 1.0))
            yield region
            if self.model.task == "segment":
                yield Annotation("region", parent=region, box=box, mask=result.rles[row], score=region.score)


def _load(weights: str) -> Any:
    """The `ultralytics.YOLO`. Raises ModelLoadError."""
    path = Path(weights).expanduser()
    if path.suffix == ".safetensors":
        return load_weights(path)
    if not path.exists():
        path = _downloaded(weights)
    try:
        return ultralytics().YOLO(str(path))
    except Exception as error:
        raise _not_loaded(weights, error) from error


def _downloaded(name: str) -> Path:
    """A model that ultralytics publishes, from the user's cache or the network. Raises ModelLoadError."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        raise ModelLoadError(
            f"there is no weights file {name}",
            "check the path, or name a model that ultralytics publishes, such as yolo11n.pt",
        )
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache_folder / "florence-data-engine" / "ultralytics" / name
    if path.exists():
        return path
    if os.environ.get("YOLO_OFFLINE", "0").strip().lower() in ("1", "true", "yes", "on"):
        reason = "it is not in the cache, and YOLO_OFFLINE is set"
    else:
        try:
            attempt_download_asset(path, progress=False, retry=1)
        except Exception as error:  # noqa: BLE001 - network, disk and HTTP errors of three libraries
            reason = _one_line(error)
        else:
            if path.exists():
                return path
            reason = "nothing was sent"
    raise ModelLoadError(
        f"cannot download {name}: {reason}", f"put the file at {path}, or give its path as `weights`"
    )


@cache
def _predictor(task: str) -> Any:
    """The library's predictor for a task, with the letterbox and the masks that this module needs."""
    from ultralytics.data.augment import LetterBox
    from ultralytics.engine.results import Results
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.models.yolo.segment import SegmentationPredictor
    from ultralytics.utils import ops

    to_masks: Any = ops.process_mask_native

    def smallest_rectangle(self: Any, images: list[np.ndarray]) -> list[np.ndarray]:
        model = self.model
        auto = model.format == "pt" or getattr(model, "dynamic", False)
        letterbox = LetterBox(self.imgsz, auto=auto, stride=model.stride)
        return [np.asarray(letterbox(image=image)) for image in images]

    def with_masks(self: Any, found: Any, seen: Any, picture: np.ndarray, path: str, prototypes: Any) -> Any:
        """Masks at the image's own size, a few at a time; a box without a single pixel is left out, as there."""
        found[:, :4] = ops.scale_boxes(seen.shape[2:], found[:, :4], picture.shape)
        rles: list[dict[str, Any]] = []
        for part in found.split(_MASKS_AT_ONCE):
            masks = to_masks(prototypes, part[:, 6:], part[:, :4], picture.shape[:2])
            rles += _encoded(masks.cpu().numpy())
        filled = [i for i, rle in enumerate(rles) if rle.pop("area")]
        result: Any = Results(picture, path=path, names=self.model.names, boxes=found[filled, :6])
        result.rles = [rles[i] for i in filled]
        return result

    if task == "segment":
        methods = {"pre_transform": smallest_rectangle, "construct_result": with_masks}
        return type("MaskPredictor", (SegmentationPredictor,), methods)
    return type("BoxPredictor", (DetectionPredictor,), {"pre_transform": smallest_rectangle})


def _encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """COCO run-length encodings of masks (n, height, width), with their `area`."""
    from pycocotools import mask as coco

    if not len(masks):
        return []
    packed = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    areas = coco.area(packed).tolist()
    return [
        {"size": list(one["size"]), "counts": one["counts"].decode("ascii"), "area": area}
        for one, area in zip(packed, areas, strict=True)
    ]


def _index(name: str, names: dict[int, str]) -> int:
    for index, known in names.items():
        if known.casefold() == name.casefold():
            return index
    raise RecipeError(
        f"the detector knows no class {name!r}{did_you_mean(name, list(names.values()))}", "correct `classes`"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).encode("ascii", "ignore").decode().split())[:200] or type(error).__name__


def _not_loaded(weights: str, error: BaseException) -> ModelLoadError:
    return ModelLoadError(
        f"cannot load {weights}: {_one_line(error)}",
        "give a weights file of ultralytics that is whole; one with code of its own in it is refused",
    )
