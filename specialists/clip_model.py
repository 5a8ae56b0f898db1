"""An image-text model of open_clip: loaded once, and asked for features of crops and of texts.

What CLIP (arXiv 2103.00020) and its kin agree on: pictures and texts become vectors of one space, and after
both have length one their product is the cosine that the models were trained with.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_engine.errors import FdeError, MissingPackageError, ModelLoadError, RecipeError
from data_engine.image import Image
from specialists.clip_config import CONFIG, check_config
from specialists.pretrained import device_and_dtype

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}

Place = tuple[int, tuple[int, int, int, int]]
"""An image's index in the batch and a crop of it: x0, y0, x1, y1 in whole pixels."""


class ClipModel:
    """Features of length one, of pictures and of texts.

    - `model` and `pretrained`: a name and tag of open_clip, downloaded once to where huggingface_hub
      keeps its files; or as `pretrained` a weights file for that `model`; or a folder with
      open_clip_config.json and weights, which says itself what model it is. A `model` `hf-hub:NAME`
      or `local-dir:FOLDER` needs no `pretrained`.
    - `max_batch`: crops, and texts, that go through the model at once; it bounds memory.
    - `texts`: whether texts will be read; without, no tokenizer is loaded.

    Texts longer than the model reads (77 tokens in CLIP) are cut. Weights are read from safetensors, or with
    torch's `weights_only`. Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None,
        device: str | None = None,
        dtype: str = "auto",
        max_batch: int = 64,
        texts: bool = True,
    ) -> None:
        try:
            import open_clip
        except ImportError as error:
            raise MissingPackageError.of(error.name or "open_clip_torch", "scorer") from error
        if max_batch < 1:
            raise RecipeError(f"max_batch is {max_batch}", "it must be at least 1")
        self.max_batch = max_batch
        self.device, self.dtype = device_and_dtype(device, dtype)
        name, tag = _place(model, pretrained)
        try:
            with _no_root_logging():
                check_config(name)
                network, preprocess = open_clip.create_model_from_pretrained(
                    name,
                    pretrained=tag,
                    precision=_PRECISIONS[str(self.dtype).removeprefix("torch.")],
                    device=self.device,
                    weights_only=True,
                )
                self.tokenizer: Any = open_clip.get_tokenizer(name) if texts else None
        except FdeError:
            raise
        except ImportError as error:  # a tokenizer or tower that another library runs
            raise MissingPackageError.of(error.name or "transformers", "scorer") from error
        except Exception as error:
            shown = f"{name} {tag}" if tag else name
            raise ModelLoadError(
                f"cannot load {shown}: {' '.join(str(error).split())[:200] or type(error).__name__}",
                "check the name and the network, or give a weights file or a folder as `pretrained`",
            ) from error
        self.network: Any = network.eval()
        self.preprocess: Any = preprocess

    def image_features(self, images: Sequence[Image], places: Sequence[Place]) -> Any:
        """Features of length one of crops, a float32 tensor (crops, d) on the CPU; `places` is not empty."""
        import torch

        def encoded(part: list[Place]) -> Any:
            whole = {i: images[i].pil for i in {i for i, _ in part}}
            pixels = torch.stack([self.preprocess(whole[i].crop(crop)) for i, crop in part])
            return self.network.encode_image(pixels.to(self.device, self.dtype))

        with torch.inference_mode():
            features = torch.cat([encoded(part) for part in self._parts(places)])
            return torch.nn.functional.normalize(features.float(), dim=-1).cpu()

    def whole_image_features(self, images: Sequence[Image]) -> Any:
        """Features of length one of images, a float32 tensor (images, d) on the CPU; there is at least one."""
        return self.image_features(images, [(i, (0, 0, im.width, im.height)) for i, im in enumerate(images)])

    def text_features(self, texts: Sequence[str]) -> Any:
        """Features of length one of texts, a float32 tensor (texts, d) on the CPU; `texts` is not empty."""
        import torch

        with torch.inference_mode():
            features = torch.cat(
                [
                    self.network.encode_text(self.tokenizer(part).to(self.device))
                    for part in self._parts(texts)
                ]
            )
            return torch.nn.functional.normalize(features.float(), dim=-1).cpu()

    def _parts(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        for start in range(0, len(items), self.max_batch):
            yield list(items[start : start + self.max_batch])


def _place(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """`model_name` and `pretrained` as open_clip takes them. Raises RecipeError or ModelLoadError."""
    if model.startswith(("hf-hub:", "local-dir:")):
        return model, None
    if not pretrained:
        raise RecipeError(
            f"{model} needs weights", "give `pretrained`: a tag of open_clip, a file or a folder"
        )
    path = Path(pretrained).expanduser()
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise ModelLoadError(
                f"{pretrained} holds no {CONFIG}",
                "give the weights file itself, and the name of its model as `model`",
            )
        return f"local-dir:{path}", None
    return model, str(path) if path.is_file() else pretrained


@contextmanager
def _no_root_logging() -> Iterator[None]:
    """open_clip logs to the root logger, which then gets a handler that prints; its errors are raised too."""
    root, handler, disabled = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
