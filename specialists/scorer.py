"""How well each text fits what it is said of: cosine similarity of a CLIP's image and text features.

FLD-5B chooses among the candidate texts of a region by an image-text model (arXiv 2311.06242, section
4.1), and LAION keeps an alt-text by the same measure (0.28 and above with ViT-B/32). Any model that
open_clip runs can do it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import FdeError, MissingPackageError, ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.pretrained import device_and_dtype
from specialists.said import Statement, statements

VERSION = 1

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}

Place = tuple[int, tuple[int, int, int, int]]
"""An image's index in the batch and a crop of it: x0, y0, x1, y1 in whole pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    image: int
    statement: Statement
    place: Place
    text: str


class Scorer:
    """One score for every statement in `said` that has a text.

    A text is compared with the whole image, a region's or phrase's text with the crop of its box. The
    score is the cosine similarity, and 0 where that is negative; its row has the statement's kind and
    granularity, and the statement as parent.

    - `model` and `pretrained`: a name and tag of open_clip, downloaded once to where huggingface_hub
      keeps its files; or as `pretrained` a weights file for that `model`; or a folder with
      open_clip_config.json and weights, which says itself what model it is. A `model` `hf-hub:NAME`
      or `local-dir:FOLDER` needs no `pretrained`.
    - `context`: how much of the surroundings a crop shows, on each side as a share of the box's own.
    - `minimum_side`: smaller crops grow to so many pixels, where the image allows.
    - `max_batch`: crops, and texts, that go through the model at once; it bounds memory.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Equal texts are encoded once per batch, and so are equal crops. Texts longer than the model reads
    (77 tokens in CLIP) are cut. Weights are read from safetensors, or with torch's `weights_only`.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str | None = "laion2b_s34b_b79k",
        device: str | None = None,
        dtype: str = "auto",
        context: float = 0.0,
        minimum_side: int = 16,
        max_batch: int = 64,
        sources: list[str] | None = None,
    ) -> None:
        try:
            import open_clip
        except ImportError as error:
            raise MissingPackageError.of(error.name or "open_clip_torch", "scorer") from error
        if context < 0 or minimum_side < 1 or max_batch < 1:
            raise RecipeError(
                "context must not be negative, minimum_side and max_batch must be at least 1", "raise them"
            )
        self.context = context
        self.minimum_side = minimum_side
        self.max_batch = max_batch
        self.sources = None if sources is None else frozenset(sources)
        self.device, self.dtype = device_and_dtype(device, dtype)
        name, tag = _place(model, pretrained)
        try:
            with _no_root_logging():
                network, preprocess = open_clip.create_model_from_pretrained(
                    name,
                    pretrained=tag,
                    precision=_PRECISIONS[str(self.dtype).removeprefix("torch.")],
                    device=self.device,
                    weights_only=True,
                )
                self.tokenizer: Any = open_clip.get_tokenizer(name)
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

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per statement with a text, in the order of `said`."""
        if said is None:
            raise SpecialistError(
                "the scorer judges what others said, and was given nothing",
                "name the specialists to judge under this one's `needs`",
            )
        pairs = list(self._pairs(images, statements(said, self.sources)))
        made: list[list[Annotation]] = [[] for _ in images]
        for pair, score in zip(pairs, self._similarities(images, pairs), strict=True):
            s = pair.statement
            made[pair.image].append(Annotation(s.kind, None, s.granularity, s.reference, score=score))
        return made

    def _pairs(self, images: Sequence[Image], said: dict[str, list[Statement]]) -> Iterator[_Pair]:
        for i, image in enumerate(images):
            whole = (0, 0, image.width, image.height)
            for statement in said.get(image.image_id, []):
                text = (statement.text or "").strip()
                if not text:
                    continue
                if statement.kind == "text":
                    yield _Pair(i, statement, (i, whole), text)
                elif statement.box is not None:
                    crop = crop_box(
                        statement.box, (image.width, image.height), self.context, self.minimum_side
                    )
                    yield _Pair(i, statement, (i, crop), text)

    def _similarities(self, images: Sequence[Image], pairs: Sequence[_Pair]) -> list[float]:
        import torch

        if not pairs:
            return []
        places = {place: row for row, place in enumerate(dict.fromkeys(pair.place for pair in pairs))}
        texts = {text: row for row, text in enumerate(dict.fromkeys(pair.text for pair in pairs))}
        with torch.inference_mode():
            left = self.image_features(images, list(places))[[places[pair.place] for pair in pairs]]
            right = self.text_features(list(texts))[[texts[pair.text] for pair in pairs]]
            similarities: list[float] = (left * right).sum(dim=1).clamp(0, 1).tolist()
        return similarities

    def _parts(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        for start in range(0, len(items), self.max_batch):
            yield list(items[start : start + self.max_batch])

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


def crop_box(
    box: Sequence[float], size: tuple[int, int], context: float, minimum_side: int
) -> tuple[int, int, int, int]:
    """The whole pixels that a box touches, with its surroundings, inside an image of (width, height).

    A side that would be shorter than `minimum_side` grows to it about its middle, as far as the image
    goes; at an edge it grows to the other side.
    """
    sides: list[tuple[int, int]] = []
    for low, high, end in ((box[0], box[2], size[0]), (box[1], box[3], size[1])):
        margin = (high - low) * context
        # A box beyond the image gives the pixels at its edge.
        first = min(max(int((low - margin) // 1), 0), end - 1)
        last = max(min(-int((-(high + margin)) // 1), end), first + 1)
        lacking = min(minimum_side, end) - (last - first)
        if lacking > 0:
            first = min(max(first - lacking // 2, 0), end - min(minimum_side, end))
            last = first + min(minimum_side, end)
        sides.append((first, last))
    (x0, x1), (y0, y1) = sides
    return x0, y0, x1, y1


def _place(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """`model_name` and `pretrained` as open_clip takes them. Raises RecipeError or ModelLoadError."""
    if model.startswith(("hf-hub:", "local-dir:")):
        return model, None
    if not pretrained:
        raise RecipeError(
            "the scorer needs weights", "give `pretrained`: a tag of open_clip, a file or a folder"
        )
    path = Path(pretrained).expanduser()
    if path.is_dir():
        if not (path / "open_clip_config.json").is_file():
            raise ModelLoadError(
                f"{pretrained} holds no open_clip_config.json",
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
