"""MobileSAM, SAM and SAM 2 as ultralytics runs them (AGPL-3.0): a mask for each box.

FLD-5B's masks are made this way: SAM (Kirillov et al., arXiv 2304.02643) is prompted with the box of each
region and each phrase (arXiv 2311.06242, section 4.1). MobileSAM (Zhang et al., arXiv 2306.14289) has SAM's
decoder behind an encoder of a hundredth of its size, which a machine without a GPU can run.

The image goes through the encoder once, and all of its boxes through the small decoder. What transformers
can run needs none of this: specialists.sam.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.box_prompts import PIXELS_AT_ONCE, Rows, mask_rows, prompts
from specialists.detector_prediction import bgr, downloaded, not_loaded
from specialists.detector_weights import ultralytics
from specialists.pretrained import device_and_dtype
from specialists.said import statements

VERSION = 1

_FOR_VIDEOS = ("no_obj_embed_spatial", "obj_ptr_tpos_proj.")
"""What SAM 2.1 has more than SAM 2: for what it remembers of earlier frames, so not for images."""


class UltralyticsSam:
    """One mask for every region and every phrase in `said` that has a box.

    Lines of text (granularity `ocr`) and further texts of a region get none, and neither does a box beyond
    the image. A mask's row has the kind of the statement that it hangs on, the mask's own extent as its
    box, which may reach out of the prompt's, and as its score the IoU with the true mask that the model
    predicts, moved into 0..1. A mask is where the model's logit is above 0; an empty one is no row.

    - `weights`: a `.pt` file whose name ends as ultralytics names its segmenters (`mobile_sam.pt`, `sam_b.pt`,
      `sam2.1_t.pt`, ...), for the name alone tells how the network is built; or such a name, which is then
      downloaded once into the user's cache folder (not when YOLO_OFFLINE is set).
    - `multimask_output`: the best, by predicted IoU, of three masks (whole, part, part of the part), which
      are meant for a prompt that leaves open what it means, such as a point. A box says how large the
      thing is, and for those the authors' predictor recommends the single mask: the default.
    - `imgsz`: side in pixels of the square that the model sees, a multiple of 32; 1,024 is what it was
      trained with.
    - `max_boxes_at_once` of an image through the decoder bound memory.
    - `device`: as torch names it; by default the GPU where there is one. `half`: float16 there.
    - `sources`: of the statements of `needs`, only those by these specialists.

    A `.pt` is a pickle, which can name any code: it is read with torch's `weights_only`, as tensors alone, and
    one that names anything else is refused. Equal boxes of an image are prompted once.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        weights: str = "mobile_sam.pt",
        multimask_output: bool = False,
        imgsz: int = 1024,
        max_boxes_at_once: int = 64,
        device: str | None = None,
        half: bool = False,
        sources: list[str] | None = None,
    ) -> None:
        if imgsz < 32 or imgsz % 32:
            raise RecipeError(f"imgsz is {imgsz}", "it must be a multiple of 32, such as 1024")
        if max_boxes_at_once < 1:
            raise RecipeError(f"max_boxes_at_once is {max_boxes_at_once}", "it must be at least 1")
        self.masks_per_box = 3 if multimask_output else 1
        self.max_boxes = max_boxes_at_once
        self.sources = None if sources is None else frozenset(sources)
        ultralytics()
        from ultralytics.models.sam import Predictor, SAM2Predictor

        place, _ = device_and_dtype(device, "float32")
        name, network = _load(weights)
        kind: Any = SAM2Predictor if name.startswith("sam2") else Predictor
        arguments = {"imgsz": imgsz, "device": str(place), "quantize": 16 if half else None}
        self.predictor: Any = kind(overrides={**arguments, "verbose": False, "save": False})
        self.predictor.setup_model(model=network, verbose=False)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """One row per statement with a box, in the order of `said`."""
        if said is None:
            raise SpecialistError(
                "SAM makes masks of boxes, and was given none",
                "name the specialists that find boxes under this one's `needs`",
            )
        given = statements(said, self.sources)
        made: list[list[Annotation | ImageError]] = []
        for image in images:
            asked = prompts(image, given.get(image.image_id, []))
            made.append(asked.annotations(self._rows(image, asked.boxes) if len(asked.boxes) else []))
        return made

    def _rows(self, image: Image, boxes: Any) -> Rows:
        """A row per box. The library's predictors take one image at a time."""
        at_once = PIXELS_AT_ONCE // (image.height * image.width * self.masks_per_box)
        at_once = max(1, min(self.max_boxes, at_once))
        self.predictor.set_image(bgr(image))
        rows: Rows = []
        for start in range(0, len(boxes), at_once):
            masks, found = self.predictor.inference_features(
                self.predictor.features,
                src_shape=(image.height, image.width),
                bboxes=boxes[start : start + at_once],
                multimask_output=self.masks_per_box > 1,
            )
            # Of each box, its masks one after the other; a row of `found` is a mask's extent, score and index.
            scores, best = found[:, 4].view(-1, self.masks_per_box).max(dim=1)
            masks = masks.unflatten(0, (-1, self.masks_per_box)).take_along_dim(best[:, None, None, None], 1)
            rows += mask_rows(masks[:, 0].cpu().numpy(), scores.float().cpu().numpy())
        self.predictor.reset_image()
        return rows


def _load(weights: str) -> tuple[str, Any]:
    """The name that ultralytics knows a segmenter by, and its network. Raises ModelLoadError."""
    from ultralytics.models.sam.build import sam_model_map

    path = Path(weights).expanduser()
    name = next((known for known in sam_model_map if path.name.endswith(known)), None)
    if name is None:
        raise ModelLoadError(
            f"{weights} is not named as a segmenter of ultralytics",
            f"the name tells how the network is built; it must end in one of {', '.join(sam_model_map)}",
        )
    if not path.exists():
        path = downloaded(weights)
    build: Any = sam_model_map[name]
    try:
        return name, _network(path, build())
    except Exception as error:
        raise not_loaded(weights, error) from error


def _network(path: Path, network: Any) -> Any:
    """The network with the file's tensors. The library's own loading would run what the pickle names."""
    import torch

    tensors = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(tensors.get("model"), dict):
        tensors = tensors["model"]
    lacking, unknown = network.load_state_dict(tensors, strict=False)
    unknown = [key for key in unknown if not key.startswith(_FOR_VIDEOS)]
    if lacking or unknown:
        raise ValueError(
            f"it lacks {len(lacking)} of the network's tensors and has {len(unknown)} others, "
            f"among them {[*lacking, *unknown][0]}"
        )
    return network
