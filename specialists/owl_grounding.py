"""Boxes for the noun phrases of each text of an image, by OWLv2 or OWL-ViT.

The same work as specialists.grounding_dino's, FLD-5B's triplets (arXiv 2311.06242, section 4.1), by a model
that judges each phrase alone: it costs one pass per image instead of one per text, and a phrase's score does
not depend on the text around it, nor does the model know it ("the other dog" is a dog).

A text of any length is grounded whole: the model reads its phrases, one query each, and never the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.noun_phrases import noun_phrases
from specialists.owl_model import OwlModel, Patches
from specialists.phrase_texts import Boxes, PhraseText, phrase_rows, phrase_texts
from specialists.said import statements

VERSION = 1  # raised too when what specialists.owl_model or phrase_texts says changes

_QUERIES_AT_ONCE = 1024
"""Each costs a number per patch, of which OWLv2 has 3,600: 15 MB for so many."""


class OwlGrounding:
    """Noun phrases of the descriptions in `said`, of all granularities, with their boxes.

    - `model`: OWLv2 or OWL-ViT, a name on the hub or a folder, and a `revision` of it.
    - `threshold`: a phrase is given the boxes above it. 0.1 is the model card's. It is low on purpose, for
      filters can raise it and not lower it: for training on such boxes, the model's authors found loose
      thresholds such as 0.3 better than strict ones (OWL-ST, arXiv 2306.09683).
    - `max_boxes_per_phrase`: the best ones; FLD-5B has 1 to 2 regions per phrase, crowds have more. The model is
      trained to give an object one box; where it gives several, none is suppressed here: that is left to filters.
    - `max_images`, `dtype`: as in `OwlModel`. `device`: as torch names it; by default the GPU where there is one.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Phrases are asked as they stand in the text, without a prompt around them, as OWL-ST asked the n-grams of
    captions. The model reads 14 tokens of one; of a longer phrase the last 14 are asked, which end with its
    head noun. Phrases that are nothing but special tokens have no boxes.

    Each image is encoded once, and none without a phrase; each phrase is embedded once per batch of images.
    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str = "google/owlv2-base-patch16-ensemble",
        revision: str | None = None,
        threshold: float = 0.1,
        max_boxes_per_phrase: int = 20,
        max_images: int = 8,
        device: str | None = None,
        dtype: str = "auto",
        sources: list[str] | None = None,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise RecipeError(f"threshold is {threshold}", "it must lie in 0..1")
        if max_boxes_per_phrase < 1:
            raise RecipeError(f"max_boxes_per_phrase is {max_boxes_per_phrase}", "it must be at least 1")
        self.threshold = threshold
        self.max_boxes = max_boxes_per_phrase
        self.sources = None if sources is None else frozenset(sources)
        noun_phrases([""])  # a missing parser fails here, once, and not image by image
        self.model = OwlModel(model, revision, max_images, device, dtype)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per phrase and box, phrases in the order of the text, boxes by falling score."""
        if said is None:
            raise SpecialistError(
                "OWL finds the phrases of texts, and was given none",
                "name the specialist that writes captions under this one's `needs`",
            )
        texts = phrase_texts(images, statements(said, self.sources))
        rows, queries = self._queries(texts)
        of_image: dict[int, list[PhraseText]] = {}
        for text in texts:
            if any(phrase in rows for phrase, _, _ in text.phrases):
                of_image.setdefault(text.image, []).append(text)
        seen = self.model.patches([images[i] for i in of_image])
        for patches, about in zip(seen, of_image.values(), strict=True):
            phrases = list(
                dict.fromkeys(phrase for text in about for phrase, _, _ in text.phrases if phrase in rows)
            )
            found = self._found(patches, queries[[rows[phrase] for phrase in phrases]])
            boxes = dict(zip(phrases, found, strict=True))
            for text in about:
                text.boxes = boxes
        return phrase_rows(images, texts)

    def _queries(self, texts: Sequence[PhraseText]) -> tuple[dict[str, int], Any]:
        """The row of each phrase that can be asked, and the embeddings (rows, d)."""
        phrases = list(dict.fromkeys(phrase for text in texts for phrase, _, _ in text.phrases))
        asked = {
            phrase: tokens
            for phrase, tokens in zip(phrases, self.model.tokens(phrases), strict=True)
            if tokens
        }
        return {phrase: row for row, phrase in enumerate(asked)}, self.model.embedded(list(asked.values()))

    def _found(self, patches: Patches, queries: Any) -> Iterator[Boxes]:
        """The boxes of each query, best first."""
        import torch

        for part in queries.split(_QUERIES_AT_ONCE):
            with torch.inference_mode():
                logits, order = self.model.logits(patches, part).sort(dim=1, descending=True, stable=True)
                scores = logits[:, : self.max_boxes].sigmoid().cpu().numpy()
            best = order[:, : self.max_boxes].cpu().numpy()
            counts = (scores > self.threshold).sum(axis=1).tolist()
            for row, count in enumerate(counts):
                yield patches.boxes[best[row, :count]], scores[row, :count]
