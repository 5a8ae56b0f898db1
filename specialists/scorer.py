"""How well each text fits what it is said of: cosine similarity of a CLIP's image and text features.

FLD-5B chooses among the candidate texts of a region by an image-text model (arXiv 2311.06242, section
4.1), and LAION keeps an alt-text by the same measure (0.28 and above with ViT-B/32). Any model that
open_clip runs can do it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.clip_model import ClipModel, Place
from specialists.said import Statement, statements

VERSION = 1


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

    - `model`, `pretrained`, `device`, `dtype`, `max_batch`: as ClipModel takes them.
    - `context`: how much of the surroundings a crop shows, on each side as a share of the box's own.
    - `minimum_side`: smaller crops grow to so many pixels, where the image allows.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Equal texts are encoded once per batch, and so are equal crops.
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
        if context < 0 or minimum_side < 1:
            raise RecipeError(
                "context must not be negative, and minimum_side must be at least 1", "raise them"
            )
        self.context = context
        self.minimum_side = minimum_side
        self.sources = None if sources is None else frozenset(sources)
        self.clip = ClipModel(model, pretrained, device, dtype, max_batch)

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
            left = self.clip.image_features(images, list(places))[[places[pair.place] for pair in pairs]]
            right = self.clip.text_features(list(texts))[[texts[pair.text] for pair in pairs]]
            similarities: list[float] = (left * right).sum(dim=1).clamp(0, 1).tolist()
        return similarities


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
