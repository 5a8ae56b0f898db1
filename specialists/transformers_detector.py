"""Objects: boxes with a class name and a score, by a detector of transformers with classes of its own.

FLD-5B's object regions are made this way: a detector trained on public sets, then a confidence
threshold and non-maximum suppression (arXiv 2311.06242, section 4.1). It is any checkpoint that
`AutoModelForObjectDetection` knows: RT-DETRv2 (Lv et al., arXiv 2407.17140), DETR (Carion et al., arXiv
2005.12872) and Deformable DETR are held against the library by tests; RT-DETR, D-FINE, Conditional DETR
and others have the same interface. These are trained to say each object once, so that there is no
suppression here; one that is said under two names can be thinned out by a filter.

DETR's image processors pad a batch of unlike shapes, and the boxes of an image change with the padding.
Here images share a forward pass only where the model sees them in one size.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.entry_point import did_you_mean
from data_engine.errors import ImageError, MissingPackageError, ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.pretrained import device_and_dtype, load_processor, load_weights, read_config

VERSION = 1

_UNNAMED = frozenset({"", "n/a"})
"""What the COCO checkpoints of DETR call the numbers that COCO does not use."""

_OPEN_VOCABULARY = {
    "grounding-dino": "use specialists.grounding_dino:GroundingDino, which finds the phrases of texts",
    "owlv2": "use specialists.owl:OwlDetector, which finds the names that a recipe lists",
    "owlvit": "use specialists.owl:OwlDetector, which finds the names that a recipe lists",
}

_EXAMPLES = "give one of RT-DETR, D-FINE or DETR, for example PekingU/rtdetr_v2_r50vd"


class TransformersDetector:
    """Regions of granularity `phrase`: class name, box, score; best first.

    - `model`: a name on the hub or a folder, and a `revision` of it; safetensors only and without code
      of its own. The default knows COCO's 80 classes; `PekingU/rtdetr_r50vd_coco_o365` saw more pictures.
    - `threshold`: boxes at or below this score are left out. 0.5 is the library's own, for all kinds;
      what is to be thinned out by filters, or fused, can begin at 0.3: pseudo-labels with loose thresholds
      were better than with strict ones to train on (OWL-ST, arXiv 2306.09683).
    - `max_boxes` per image; 300 is how many RT-DETR looks for, so that by default none is cut.
    - `classes`: names of those wanted; by default all.
    - `device`: as torch names it; by default the GPU where there is one. `dtype`: `float32`, the type that
      the checkpoints are published in, or `auto`, which is half precision on a GPU.

    A box of which the model gives no number (half precision can overflow) is left out, and counted in
    `failures`. Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str = "PekingU/rtdetr_v2_r50vd",
        revision: str | None = None,
        threshold: float = 0.5,
        max_boxes: int = 300,
        classes: list[str] | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        try:
            import torch
            from transformers import AutoImageProcessor
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        if not 0 <= threshold <= 1:
            raise RecipeError(f"threshold is {threshold}", "it must lie in 0..1")
        if max_boxes < 1:
            raise RecipeError(f"max_boxes is {max_boxes}", "it must be at least 1")
        self.threshold = threshold
        self.max_boxes = max_boxes
        _check_kind(model, read_config(model, revision))
        torch.set_flush_denormal(True)
        self.device, self.dtype = device_and_dtype(device, dtype)
        self.network: Any = _network(model, revision, self.dtype).to(self.device).eval()
        self.names = _names(model, self.network.config.id2label)
        self.wanted = _wanted(classes, self.names)
        self.processor: Any = load_processor(AutoImageProcessor, model, revision)
        if not hasattr(self.processor, "post_process_object_detection"):
            raise ModelLoadError(
                f"{model} has the image processor {type(self.processor).__name__}, which makes no boxes",
                "its preprocessor_config.json belongs to another model: fetch the checkpoint again",
            )
        takes = inspect.signature(self.processor.post_process_object_detection).parameters
        self.cuts_to_top_k = "top_k" in takes

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """One list per image, boxes by falling score."""
        made: list[list[Annotation | ImageError]] = [[] for _ in images]
        for group, inputs in self._groups(images):
            for i, (found, lost) in zip(group, self._detect([images[i] for i in group], inputs), strict=True):
                made[i] += self._rows(found, images[i])
                if lost:
                    made[i].append(
                        ImageError("bad_annotation", f"the model gave no numbers for {lost} boxes")
                    )
        return made

    def _groups(self, images: Sequence[Image]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Indices of the images that the model sees in one size, and its inputs for them."""
        import torch

        seen = [self._inputs(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, inputs in enumerate(seen):
            groups.setdefault(tuple(inputs["pixel_values"].shape), []).append(i)
        for group in groups.values():
            yield group, {name: torch.cat([seen[i][name] for i in group]) for name in seen[group[0]]}

    def _inputs(self, image: Image) -> dict[str, Any]:
        """What the model is given of one image. Copied, for decoded pixels are read-only and torch wants
        its own; the layout is stated, for of an image 3 pixels high it could not be told."""
        try:
            inputs = self.processor(
                image.pixels.copy(), return_tensors="pt", input_data_format="channels_last"
            )
        except ValueError as error:  # a thousand times as long as wide, it is shrunk to less than a pixel
            raise ImageError(
                "specialist_error",
                f"{image.width} x {image.height} pixels cannot be brought to the model's size: {error}",
            ) from error
        return dict(inputs)

    def _detect(
        self, images: Sequence[Image], inputs: dict[str, Any]
    ) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """`scores` (n,), `labels` (n,) and `boxes` (n, 4) of each image, in its pixels; how many had no number.

        Those are told to score nothing before the best are chosen, for a NaN would be the best of all.
        """
        import torch

        given = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            output = self.network(**given)
            sound = (output.logits < math.inf).all(dim=-1) & output.pred_boxes.isfinite().all(dim=-1)
            output.logits = output.logits.float().masked_fill(~sound[..., None], -math.inf)
            output.pred_boxes = output.pred_boxes.float()
            found = self.processor.post_process_object_detection(
                output,
                threshold=self.threshold,
                target_sizes=torch.tensor([(image.height, image.width) for image in images]),
                **({"top_k": output.logits.shape[1]} if self.cuts_to_top_k else {}),
            )
            lost = (~sound).sum(dim=-1).tolist()
        for one, count in zip(found, lost, strict=True):
            yield {name: one[name].cpu().numpy() for name in ("scores", "labels", "boxes")}, count

    def _rows(self, found: dict[str, np.ndarray], image: Image) -> Iterator[Annotation]:
        scores, labels = found["scores"], found["labels"]
        boxes = np.clip(found["boxes"], 0, np.tile(np.array([image.width, image.height], np.float32), 2))
        # Inverted, or beyond the image's edge and clipped to nothing, or of no number.
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & self.wanted[labels]
        best = np.flatnonzero(kept)
        best = best[np.argsort(-scores[best], kind="stable")][: self.max_boxes]
        for label, box, score in zip(
            labels[best].tolist(), boxes[best].tolist(), scores[best].tolist(), strict=True
        ):
            yield Annotation("region", self.names[label], "phrase", box=box, score=score)


def _check_kind(model: str, config: dict[str, Any]) -> None:
    """Raises ModelLoadError for what is no detector with classes of its own."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
    )

    kind = str(config.get("model_type"))
    if kind in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES:
        raise ModelLoadError(
            f"{model} is a checkpoint of {kind!r}, which finds what it is asked for and has no classes of its own",
            _OPEN_VOCABULARY.get(kind, _EXAMPLES),
        )
    if kind.startswith("pp_ocr"):
        raise ModelLoadError(
            f"{model} is a checkpoint of {kind!r}, which finds lines of text", "use specialists.ocr:Ocr"
        )
    # Of a kind that the library knows, no code that comes with the checkpoint is looked at.
    if kind not in MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES:
        raise ModelLoadError(
            f"{model} is a checkpoint of {kind!r}, which is no object detector of transformers", _EXAMPLES
        )
    made = config.get("architectures") or []
    if made and not any(str(name).endswith("ForObjectDetection") for name in made):
        raise ModelLoadError(f"{model} is a {made[0]}, which finds no boxes", _EXAMPLES)


def _network(model: str, revision: str | None, dtype: Any) -> Any:
    """Raises ModelLoadError, and MissingPackageError where the backbone is timm's, as older DETRs' are."""
    from transformers import AutoModelForObjectDetection

    try:
        return load_weights(AutoModelForObjectDetection, model, revision, dtype)
    except ModelLoadError as error:
        if isinstance(error.__cause__, ImportError) and "timm" in str(error.__cause__):
            raise MissingPackageError(
                f"{model} has a backbone of the package 'timm', which is not installed",
                "install it with: pip install timm; or give a checkpoint without, such as PekingU/rtdetr_v2_r50vd",
            ) from error
        raise


def _names(model: str, given: dict[int, str]) -> list[str]:
    """The class names by number. Raises ModelLoadError where they are none."""
    names = [str(given.get(i, "")).strip() for i in range(len(given))]
    # Without names in its config.json, the library calls them so.
    if all(name == f"LABEL_{i}" or name.casefold() in _UNNAMED for i, name in enumerate(names)):
        raise ModelLoadError(
            f"{model} does not name its {len(names)} classes",
            'write their names into its config.json, as "id2label": {"0": "person", ...}',
        )
    return names


def _wanted(classes: list[str] | None, names: list[str]) -> np.ndarray:
    """Which class numbers become rows, (n,) bool. Raises RecipeError for a name that is none."""
    known = {name.casefold(): name for name in names if name.casefold() not in _UNNAMED}
    if classes is None:
        return np.array([name.casefold() in known for name in names])
    asked = {name.casefold() for name in classes}
    for name in classes:
        if name.casefold() not in known:
            raise RecipeError(
                f"the detector knows no class {name!r}{did_you_mean(name, list(known.values()))}",
                "correct `classes`",
            )
    if not asked:
        raise RecipeError("classes is empty", "name those wanted, or leave it out for all")
    return np.array([name.casefold() in asked for name in names])
