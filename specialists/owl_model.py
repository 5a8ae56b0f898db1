"""OWL-ViT and OWLv2: where in images something is that fits a text query.

The models (Minderer et al., arXiv 2205.06230 and 2306.09683) predict one box for each patch of the image and
compare the patch with each query, so an image needs to be encoded once, however many queries there are. The
library's `forward` encodes the queries anew with each batch, and wants as many for every image; here its
parts are called, with queries that were embedded before.

- OWLv2's processor pads an image at its right and bottom to a square, so its boxes are relative to the longer
  side; OWL-ViT's stretches it, so they are relative to each. (transformers' post-processing had that wrong for
  OWLv2 at first, issue #27205.)
- A box's score for a query is the sigmoid of its logit. OWLv2's second head, how sure it is that there is any
  object, has no part in it, as in the library.
- The towers run in the dtype asked for, the small heads always in float32: half precision would put a box's
  edges on a grid of 2,000 lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from data_engine.errors import MissingPackageError, ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.pretrained import device_and_dtype, load_processor, load_weights, read_config

_TEXTS_AT_ONCE = 256
"""Queries are 16 tokens long: so many go through the text tower in less memory than one image needs."""

_LONGEST_SIDE = 8192
"""A picture of 100,000 x 100 pixels would be padded to a square of 120 GB. Longer ones are made smaller before."""


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """An image as the model sees it, in p patches: what each one looks like and which box it stands for.

    `features` is a float32 tensor (p, d) on the model's device, `boxes` (p, 4) are x0, y0, x1, y1 in pixels of
    the image, clipped to it. `sound` (p,) is False for boxes that are none: not finite, without area, or more
    than half outside of the image, which clipped would be another box.
    """

    features: Any
    boxes: NDArray[np.float32]
    sound: NDArray[np.bool_]


class OwlModel:
    """Loads a checkpoint, from a folder or the hub, safetensors only and without code of its own.

    - `max_images` go through the model at once; it bounds memory.
    - `dtype`: of the towers, `auto` for float16 on a GPU and float32 on a CPU.

    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self, model: str, revision: str | None, max_images: int, device: str | None, dtype: str
    ) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        if max_images < 1:
            raise RecipeError(f"max_images is {max_images}", "it must be at least 1")
        self.max_images = max_images
        names = {"owlv2": "Owlv2", "owlvit": "OwlViT"}
        kind = read_config(model, revision).get("model_type")
        if kind not in names:
            raise ModelLoadError(
                f"{model} is a checkpoint of {kind!r}, not of OWLv2 or OWL-ViT",
                "give google/owlv2-base-patch16-ensemble, or another of these kinds, or its folder",
            )
        torch.set_flush_denormal(True)
        self.device, self.dtype = device_and_dtype(device, dtype)
        network = load_weights(
            getattr(transformers, f"{names[kind]}ForObjectDetection"), model, revision, self.dtype
        )
        self.network: Any = network.to(self.device).eval()
        for head in (self.network.class_head, self.network.box_head):
            head.float()
        processor = load_processor(getattr(transformers, f"{names[kind]}Processor"), model, revision)
        self.image_processor: Any = processor.image_processor
        self.tokenizer: Any = processor.tokenizer
        self.pads = kind == "owlv2" and bool(self.image_processor.do_pad)
        self.max_tokens = int(self.network.config.text_config.max_position_embeddings) - 2
        """Tokens of a query, beside those for its start and end."""
        self._check(model)

    def _check(self, model: str) -> None:
        """That the processor belongs to the weights: else every image would fail, or every box be wrong."""
        side = self.network.config.vision_config.image_size
        seen = tuple(self._pixels(np.zeros((8, 16, 3), np.uint8)).shape)
        if seen != (3, side, side):
            raise ModelLoadError(
                f"{model}: its processor makes pictures of shape {seen}, its weights take {(3, side, side)}",
                "take preprocessor_config.json from the same checkpoint as the weights",
            )
        if getattr(self.image_processor, "do_center_crop", False):
            raise ModelLoadError(
                f"{model}: its processor crops the picture, so boxes would not be the picture's",
                "set do_center_crop to false in its preprocessor_config.json",
            )
        start, end, pad = (getattr(self.tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad"))
        size = self.network.config.text_config.vocab_size
        # The text tower takes the largest id for the end of the text.
        if start is None or pad is None or end != len(self.tokenizer) - 1 or len(self.tokenizer) > size:
            raise ModelLoadError(
                f"{model}: its tokenizer has {len(self.tokenizer)} tokens, of which the one that ends a text "
                f"has id {end}; its weights know {size}, and the end as the last",
                "take the tokenizer's files from the same checkpoint as the weights",
            )

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, of any number, without those for start and end.

        What spells a special token is left out of a text (the checkpoints pad with "!", so exclamation marks
        are, too): the end of a text in its middle would hide what follows. An empty list: nothing to ask.
        """
        if not texts:
            return []
        special = frozenset(self.tokenizer.all_special_ids)
        rows = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [[i for i in row if i not in special] for row in rows]

    def embedded(self, queries: Sequence[Sequence[int]]) -> Any:
        """Embeddings of length one of queries given as `tokens`, a float32 tensor (n, d) on the device.

        Of a query of more than `max_tokens` the last are read: a noun phrase ends with its head noun.
        """
        import torch

        start, end, pad = (getattr(self.tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad"))
        found = [torch.zeros((0, self.network.config.projection_dim), device=self.device)]
        for first in range(0, len(queries), _TEXTS_AT_ONCE):
            rows = [[start, *q[-self.max_tokens :], end] for q in queries[first : first + _TEXTS_AT_ONCE]]
            # All are padded to one length, which so cannot depend on the neighbours.
            ids = torch.full((len(rows), self.max_tokens + 2), pad)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, : len(row)] = torch.tensor(row)
                mask[i, : len(row)] = 1
            with torch.inference_mode():
                towers = self.network.base_model
                text = towers.text_model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
                features = towers.text_projection(text.pooler_output).float()
                found.append(torch.nn.functional.normalize(features, dim=-1))
        return torch.cat(found)

    def patches(self, images: Sequence[Image]) -> Iterator[Patches]:
        """Each image's patches; `max_images` are read and encoded at once, as they are asked for."""
        import torch

        for first in range(0, len(images), self.max_images):
            part = images[first : first + self.max_images]
            pixels = torch.stack([self._pixels(image.pixels) for image in part])
            with torch.inference_mode():
                grid = self.network.image_embedder(pixels.to(self.device, self.dtype))[0].float()
                features = grid.flatten(1, 2)
                relative = self.network.box_predictor(features, grid).float().cpu().numpy()
            for image, one, centred in zip(part, features, relative, strict=True):
                boxes, sound = self._boxes(centred, image.width, image.height)
                yield Patches(one, boxes, sound)

    def logits(self, patches: Patches, queries: Any) -> Any:
        """How well each query fits each patch, a float32 tensor (queries, p) on the device.

        Boxes that are none, and logits that are no number, have the lowest there is: their score is 0.
        """
        import torch

        with torch.inference_mode():
            found = self.network.class_predictor(patches.features[None], queries[None])[0][0].T
            lowest = torch.finfo(found.dtype).min
            sound = torch.from_numpy(patches.sound).to(found.device)
            return torch.where(sound & ~found.isnan(), found, lowest)

    def _pixels(self, pixels: NDArray[np.uint8]) -> Any:
        """What the network sees of pixels (h, w, 3): a tensor (3, side, side), made on the device.

        They are copied, for decoded pixels are read-only and torch wants its own; the layout is stated, for of an image
        3 pixels high it could not be told.
        """
        times = -(-max(pixels.shape[:2]) // _LONGEST_SIDE)
        if self.pads and times > 1:
            pixels = np.asarray(PIL.Image.fromarray(pixels).reduce(times))
        return self.image_processor(
            pixels.copy(), return_tensors="pt", input_data_format="channels_last", device=self.device
        )["pixel_values"][0]

    def _boxes(
        self, relative: NDArray[np.float32], width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Centre and size relative to what the network saw (p, 4), to `Patches.boxes` and `sound`."""
        finite = np.isfinite(relative).all(axis=1, keepdims=True)
        relative = np.where(finite, relative, np.float32(0))  # which has no area
        image = np.array([width, height, width, height], np.float32)
        scale = np.float32(max(width, height)) if self.pads else image
        centre, half = relative[:, :2], relative[:, 2:] / 2
        corners = np.concatenate([centre - half, centre + half], axis=1) * scale
        boxes = np.clip(corners, 0, image)
        area, inside = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (corners, boxes))
        return boxes, (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (inside >= area / 2)
