"""A YOLO of ultralytics (AGPL-3.0), asked so that what it says of an image depends on that image alone.

ultralytics letterboxes a batch of unlike shapes to full squares, but an image alone to the smallest
rectangle, so that the boxes of an image change with its neighbours. Here every image gets the smallest
rectangle, and images share a forward pass where that rectangle is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data_engine.annotation import Annotation
from data_engine.errors import FdeError, ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.detector_weights import load_weights, ultralytics
from specialists.pretrained import device_and_dtype

_MASKS_AT_ONCE = 16
"""Masks are as large as the image: 300 of a 12-megapixel one would fill 14 GB."""


def settings(
    confidence: float, iou: float, imgsz: int | None, max_boxes: int, device: str | None, half: bool
) -> dict[str, Any]:
    """The arguments of a prediction, as ultralytics names them. Raises RecipeError or MissingPackageError."""
    for name, value in (("confidence", confidence), ("iou", iou)):
        if not 0 <= value <= 1:
            raise RecipeError(f"{name} is {value}", "it must lie in 0..1")
    if max_boxes < 1 or (imgsz is not None and imgsz < 32):
        raise RecipeError("max_boxes must be at least 1 and imgsz at least 32", "raise them")
    ultralytics()
    place, _ = device_and_dtype(device, "float32")
    arguments: dict[str, Any] = {
        "conf": confidence,
        "iou": iou,
        "max_det": max_boxes,
        "device": str(place),
        "quantize": 16 if half else None,
        "verbose": False,
        "save": False,
    }
    if imgsz is not None:
        arguments["imgsz"] = imgsz
    return arguments


class Prediction:
    """A loaded YOLO with the library's predictor `kind` and the arguments that `settings` made.

    Building it predicts once, which loads an exported file and chooses the device; later changes of
    `arguments` count. `weights` names the model in the error. Raises ModelLoadError.
    """

    def __init__(self, model: Any, weights: str, kind: Any, arguments: dict[str, Any]) -> None:
        self.model = model
        self.kind = kind
        self.arguments = arguments
        if isinstance(model, ultralytics().YOLOE):
            arguments.setdefault("agnostic_nms", True)  # as its own `predict` does
        try:
            self.predict([np.full((64, 64, 3), 114, np.uint8)])
        except FdeError:
            raise
        except Exception as error:
            raise not_loaded(weights, error) from error
        backend = model.predictor.model
        self.names: dict[int, str] = {int(k): str(v) for k, v in backend.names.items()}
        # An exported network may take one image of one size only.
        self.fixed = backend.format != "pt" and not getattr(backend, "dynamic", False)

    def __call__(self, images: Sequence[Image]) -> Iterator[tuple[int, Any]]:
        """The predictor's result for each image, with the image's index; in no order."""
        for group in self.groups(images):
            yield from zip(group, self.predict([bgr(images[i]) for i in group]), strict=True)

    def predict(self, pictures: list[np.ndarray]) -> list[Any]:
        """The predictor's results for pictures as OpenCV reads them, which share one forward pass."""
        from ultralytics.engine.model import Model

        # That of the base class, for YOLOE's own takes a predictor and uses another.
        return list(
            Model.predict(self.model, pictures, predictor=self.kind, batch=len(pictures), **self.arguments)
        )

    def groups(self, images: Sequence[Image]) -> Iterator[list[int]]:
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


def bgr(image: Image) -> np.ndarray:
    """Its pixels with blue first, as ultralytics takes arrays."""
    return np.ascontiguousarray(image.pixels[..., ::-1])


def regions(result: Any, names: Mapping[int, str]) -> Iterator[Annotation]:
    """The boxes of a result, best first; where it has masks, each stands after its region."""
    boxes = result.boxes.data.float().cpu().numpy()
    masks = getattr(result, "rles", None)
    for row, (x0, y0, x1, y1, score, index) in enumerate(boxes.tolist()):
        if x1 <= x0 or y1 <= y0:
            continue  # beyond the image's edge, and clipped to nothing
        box = (x0, y0, x1, y1)
        region = Annotation("region", names[int(index)], "phrase", box=box, score=min(score, 1.0))
        yield region
        if masks is not None:
            yield Annotation("region", parent=region, box=box, mask=masks[row], score=region.score)


def load_yolo(weights: str) -> Any:
    """The `ultralytics.YOLO` of a file, or of the name of a published model. Raises ModelLoadError.

    A `.pt` is read with torch's `weights_only`, with only the library's layers allowed.
    """
    path = Path(weights).expanduser()
    if path.suffix == ".safetensors":
        return load_weights(path)
    if not path.exists():
        path = downloaded(weights)
    try:
        return ultralytics().YOLO(str(path))
    except Exception as error:
        raise not_loaded(weights, error) from error


def downloaded(name: str) -> Path:
    """A model that ultralytics publishes, from the user's cache or the network. Raises ModelLoadError."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if name not in GITHUB_ASSETS_NAMES:
        raise ModelLoadError(
            f"there is no weights file {name}",
            "check the path, or name one that ultralytics publishes, such as yolo11n.pt or mobile_sam.pt",
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
def predictor(task: str) -> Any:
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).encode("ascii", "ignore").decode().split())[:200] or type(error).__name__


def not_loaded(weights: str, error: BaseException) -> ModelLoadError:
    """The error for weights that the library could not read or run."""
    return ModelLoadError(
        f"cannot load {weights}: {_one_line(error)}",
        "give a weights file of ultralytics that is whole; one with code of its own in it is refused",
    )
