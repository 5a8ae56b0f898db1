"""A captioning model of transformers: pictures in, one sentence each out.

It is any checkpoint that `AutoModelForImageTextToText` knows, whose processor brings all pictures to one size
and which needs no dialogue around its prompt: BLIP and GIT are held against the library by tests, and others
of that interface (BLIP-2) should do as well. What captions the whole image and what captions regions
(specialists.captioner, specialists.region_captions) differ only in the pictures that they show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_engine.errors import MissingPackageError, ModelLoadError, RecipeError
from specialists.pretrained import device_and_dtype, load_processor, load_weights, read_config

Pixels = NDArray[np.uint8]


class CaptionModel:
    """Loads a checkpoint, from a folder or the hub, safetensors only and without code of its own.

    - `prompt`: how the captions begin (BLIP: "a picture of"); it is cut off them. None, and always None
      for GIT, which cannot go on from one: no prompt.
    - `num_beams`: 3, as in BLIP's evaluation (Li et al., arXiv 2201.12086); 1 is greedy.
    - `max_new_tokens`: captions are cut there.
    - `max_batch`: pictures that go through the model at once; it bounds memory.

    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        prompt: str | None,
        num_beams: int,
        max_new_tokens: int,
        max_batch: int,
        device: str | None,
        dtype: str,
    ) -> None:
        try:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor
            from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        for name, value in (
            ("num_beams", num_beams),
            ("max_new_tokens", max_new_tokens),
            ("max_batch", max_batch),
        ):
            if value < 1:
                raise RecipeError(f"{name} is {value}", "it must be at least 1")
        self.prompt = prompt or None
        self.num_beams = num_beams
        self.max_new_tokens = max_new_tokens
        self.max_batch = max_batch
        kind = read_config(model, revision).get("model_type")
        if kind == "florence2":
            raise ModelLoadError(
                f"{model} is a Florence-2, which has tasks instead of prompts",
                "use specialists.florence2:Florence2 with tasks: [CAPTION] or [REGION_TO_DESCRIPTION]",
            )
        # Of a kind that the library knows, no code that comes with the checkpoint is looked at.
        if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise ModelLoadError(
                f"{model} is a checkpoint of {kind!r}, which transformers cannot caption pictures with",
                "give one of BLIP, BLIP-2 or GIT, for example Salesforce/blip-image-captioning-base",
            )
        if kind == "git" and self.prompt is not None:
            raise RecipeError("GIT captions without a prompt", "leave `prompt` out")
        torch.set_flush_denormal(True)
        self.device, self.dtype = device_and_dtype(device, dtype)
        network = load_weights(AutoModelForImageTextToText, model, revision, self.dtype)
        self.network: Any = network.to(self.device).eval()
        self.processor: Any = load_processor(AutoProcessor, model, revision)
        if not hasattr(self.processor, "image_processor") or not hasattr(self.processor, "tokenizer"):
            raise ModelLoadError(
                f"{model} has no processor for both pictures and text",
                "save the checkpoint with its processor: it needs preprocessor_config.json and a tokenizer",
            )

    def captions(self, pictures: Iterable[Pixels]) -> list[str]:
        """One caption per picture (h, w, 3), in one line; empty where the model says nothing.

        Pictures are taken from the iterator only as they are needed, `max_batch` at a time.
        """
        coming: Iterator[Pixels] = iter(pictures)
        said: list[str] = []
        while part := list(islice(coming, self.max_batch)):
            said += self._part(part)
        return said

    def _part(self, pictures: list[Pixels]) -> list[str]:
        import torch

        text = {} if self.prompt is None else {"text": [self.prompt] * len(pictures)}
        # Copied, for torch wants pixels that are whole and may be written to. The layout is stated, for of
        # a picture 3 pixels high it could not be told.
        inputs = self.processor(
            images=[p.copy() for p in pictures],
            return_tensors="pt",
            input_data_format="channels_last",
            **text,
        ).to(self.device, self.dtype)
        with torch.inference_mode():
            ids = self.network.generate(
                **inputs, num_beams=self.num_beams, max_new_tokens=self.max_new_tokens, do_sample=False
            )
        ids = [
            row if self.prompt is None else _answer(row, inputs["input_ids"][0].tolist())
            for row in ids.tolist()
        ]
        said = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [" ".join(text.split()) for text in said]


def _answer(ids: list[int], asked: list[int]) -> list[int]:
    """What a model wrote, without the prompt where it repeats that.

    BLIP puts a token of its own for the prompt's first, and leaves out the one that ends it.
    """
    last = len(asked) - 1
    if ids[1:last] != asked[1:last]:
        return ids
    return ids[last:] if ids[last : last + 1] != asked[last:] else ids[last + 1 :]
