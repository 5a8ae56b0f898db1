"""SAM and SAM 2: a mask for each box, by transformers.

FLD-5B's masks are made this way: SAM (Kirillov et al., arXiv 2304.02643) is prompted with the box of each
region and each phrase (arXiv 2311.06242, section 4.1). SAM 2 (Ravi et al., arXiv 2408.00714) takes the same
prompts; its published checkpoints also track through videos, and the part for images is what is used.

The image goes through the large encoder once, and all of its boxes through the small decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, MissingPackageError, ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.box_prompts import PIXELS_AT_ONCE, Rows, mask_rows, prompts
from specialists.pretrained import device_and_dtype, load_processor, load_weights, read_config
from specialists.said import statements

VERSION = 1


class Sam:
    """One mask for every region and every phrase in `said` that has a box.

    Lines of text (granularity `ocr`) and further texts of a region get none, and neither does a box beyond
    the image. A mask's row has the kind of the statement that it hangs on, the mask's own extent as its
    box, which may reach out of the prompt's, and as its score the IoU with the true mask that the model
    predicts, moved into 0..1. A mask is where the model's logit is above 0; an empty one is no row.

    - `model`: a name on the hub or a folder, and a `revision` of it: SAM (facebook/sam-vit-base, -large,
      -huge) or SAM 2 (facebook/sam2.1-hiera-base-plus and its kin).
    - `multimask_output`: the best, by predicted IoU, of three masks (whole, part, part of the part), which
      are meant for a prompt that leaves open what it means, such as a point. A box says how large the
      thing is, and for those the authors' predictor recommends the single mask: the default.
    - `max_images_at_once` through the encoder and `max_boxes_at_once` of an image through the decoder
      bound memory.
    - `dtype`: float32, in which the checkpoints are published; float16, bfloat16 or auto on a GPU.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Equal boxes of an image are prompted once. Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str = "facebook/sam-vit-base",
        revision: str | None = None,
        multimask_output: bool = False,
        max_boxes_at_once: int = 64,
        max_images_at_once: int = 4,
        device: str | None = None,
        dtype: str = "float32",
        sources: list[str] | None = None,
    ) -> None:
        try:
            import torch
            from transformers import AutoModelForMaskGeneration, Sam2Processor, SamProcessor
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        if max_boxes_at_once < 1 or max_images_at_once < 1:
            raise RecipeError("max_boxes_at_once and max_images_at_once must be at least 1", "raise them")
        self.multimask_output = multimask_output
        self.max_boxes = max_boxes_at_once
        self.max_images = max_images_at_once
        self.sources = None if sources is None else frozenset(sources)

        # A published SAM 2 says that it is the model for videos: the library loads its part for images.
        processors = {"sam": SamProcessor, "sam2": Sam2Processor, "sam2_video": Sam2Processor}
        kind = read_config(model, revision).get("model_type")
        if kind not in processors:
            raise ModelLoadError(
                f"{model} is a checkpoint of {kind!r}, not of SAM or SAM 2",
                "give one such as facebook/sam-vit-base or facebook/sam2.1-hiera-base-plus",
            )
        torch.set_flush_denormal(True)
        self.device, self.dtype = device_and_dtype(device, dtype)
        network = load_weights(AutoModelForMaskGeneration, model, revision, self.dtype)
        self.network: Any = network.to(self.device).eval()
        self.processor: Any = load_processor(processors[kind], model, revision)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """One row per statement with a box, in the order of `said`."""
        if said is None:
            raise SpecialistError(
                "SAM makes masks of boxes, and was given none",
                "name the specialists that find boxes under this one's `needs`",
            )
        given = statements(said, self.sources)
        asked = [prompts(image, given.get(image.image_id, [])) for image in images]
        made: list[list[Annotation | ImageError]] = [[] for _ in images]
        prompted = [i for i, one in enumerate(asked) if len(one.boxes)]
        for start in range(0, len(prompted), self.max_images):
            part = prompted[start : start + self.max_images]
            seen = [self._inputs(images[i], asked[i].boxes) for i in part]
            embeddings = self._encoded([inputs["pixel_values"] for inputs in seen])
            for i, inputs, embedding in zip(part, seen, embeddings, strict=True):
                made[i] = asked[i].annotations(self._rows(embedding, inputs))
        return made

    def _inputs(self, image: Image, boxes: Any) -> dict[str, Any]:
        """What the model is given of one image, boxes in the pixels that it sees. Copied, for decoded pixels
        are read-only and torch wants its own; the layout is stated, for of an image 3 pixels high it could
        not be told."""
        try:
            inputs = self.processor(
                images=image.pixels.copy(),
                input_boxes=[boxes.tolist()],
                return_tensors="pt",
                input_data_format="channels_last",
            )
        except ValueError as error:  # over a thousand times as long as wide, SAM's shrinks it to no pixel
            raise ImageError(
                "specialist_error",
                f"{image.width} x {image.height} pixels cannot be brought to the model's size: {error}",
            ) from error
        return dict(inputs)

    def _encoded(self, pixels: Sequence[Any]) -> list[Any]:
        """Each image's embedding, of one image, as the network takes it: a tensor, of SAM 2 three."""
        import torch

        with torch.inference_mode():
            found = self.network.get_image_embeddings(torch.cat(list(pixels)).to(self.device, self.dtype))
        if isinstance(found, list):
            return [[level[i : i + 1] for level in found] for i in range(len(pixels))]
        return [found[i : i + 1] for i in range(len(pixels))]

    def _rows(self, embedding: Any, inputs: dict[str, Any]) -> Rows:
        """A row per box of `inputs`."""
        import torch

        # Never in half precision: the numbers of bfloat16 lie 4 pixels apart between 512 and 1,024.
        boxes = inputs["input_boxes"].float().to(self.device)
        sizes = [inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        height, width = sizes[0][0].tolist()
        side = max(inputs["pixel_values"].shape[-2:])
        at_once = max(1, PIXELS_AT_ONCE // max(height * width, side * side))
        rows: Rows = []
        with torch.inference_mode():
            for some in boxes.split(self.max_boxes, dim=1):
                output = self.network(
                    image_embeddings=embedding, input_boxes=some, multimask_output=self.multimask_output
                )
                scores, best = output.iou_scores[0].float().max(dim=1)
                rank = best[:, None, None, None]
                logits = output.pred_masks[0].float().take_along_dim(rank, dim=1)
                for few, theirs in zip(logits.split(at_once), scores.split(at_once), strict=True):
                    masks = self.processor.post_process_masks([few], *sizes)[0][:, 0]
                    rows += mask_rows(masks.cpu().numpy(), theirs.cpu().numpy())
        return rows
