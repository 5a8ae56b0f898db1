"""YOLO-World or YOLOE as a grounding detector (AGPL-3.0): boxes for the noun phrases of an image's texts.

FLD-5B's text-phrase-region triplets come from Grounding DINO (arXiv 2311.06242, section 4.1), which reads the
words of a phrase while it looks. A YOLO that takes names is a smaller network, and compares what it sees with
one vector for each phrase, made beforehand.

The phrases of an image are its vocabulary, and go through the network together, whatever texts they stand in;
images of one batch have different ones. Each phrase is judged by itself: a box may belong to "a dog" and to
"the animal", where the library would name it once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.detector_prediction import Prediction, bgr, predictor, settings
from specialists.detector_vocabulary import load_open, load_text_model, set_vocabulary, text_features
from specialists.noun_phrases import noun_phrases
from specialists.phrase_texts import Boxes, PhraseText, phrase_rows, phrase_texts
from specialists.said import statements

VERSION = 1  # raised too when what detector_prediction or detector_vocabulary says changes

_CANDIDATES = 30_000
"""Boxes of all phrases of a pass that suppression is given, the best: the library's own bound."""


@dataclass(slots=True, eq=False)
class _Pass:
    """Phrases of one image for one forward pass."""

    image: int
    phrases: list[str]


class PhraseDetector:
    """Noun phrases of the descriptions in `said`, with their boxes.

    - `weights`: as of `specialists.detector_open:OpenDetector`; masks are not made here.
    - `confidence`: boxes below it are left out. 0.1 is our own choice, and loose: scores of these models
      for a phrase are low, and a filter can raise the bar later. `iou`: of two boxes of a phrase that
      overlap by more, the weaker is left out; 0.7 is the library's own.
    - `max_boxes_per_phrase`: the best ones; FLD-5B has 1 to 2 regions per phrase, crowds have more.
    - `max_phrases_per_pass`: an image's phrases go through the model together. Those of more than this
      are divided, which bounds memory; in YOLO-World scores depend a little on the other phrases.
    - `max_passes_per_batch` bounds memory too. Only images that the model sees in one size share a batch.
    - `imgsz`, `device`, `half`, `text_model`, `text_pretrained`: as there.
    - `sources`: of the statements of `needs`, only those by these specialists.

    A phrase that several texts or images of a batch have is read once. Raises RecipeError, ModelLoadError
    or MissingPackageError.
    """

    def __init__(
        self,
        weights: str,
        confidence: float = 0.1,
        iou: float = 0.7,
        imgsz: int | None = None,
        max_boxes_per_phrase: int = 20,
        max_phrases_per_pass: int = 200,
        max_passes_per_batch: int = 16,
        device: str | None = None,
        half: bool = False,
        text_model: str | None = None,
        text_pretrained: str | None = None,
        sources: list[str] | None = None,
    ) -> None:
        if min(max_boxes_per_phrase, max_phrases_per_pass, max_passes_per_batch) < 1:
            raise RecipeError(
                "max_boxes_per_phrase, max_phrases_per_pass and max_passes_per_batch must be at least 1",
                "raise them",
            )
        arguments = settings(confidence, iou, imgsz, max_boxes_per_phrase, device, half)
        self.confidence = confidence
        self.iou = iou
        self.max_boxes = max_boxes_per_phrase
        self.max_phrases = max_phrases_per_pass
        self.max_passes = max_passes_per_batch
        self.sources = None if sources is None else frozenset(sources)
        noun_phrases([""])  # a missing parser fails here, once, and not image by image
        model = load_open(weights)
        network = model.model
        self.text_model = load_text_model(network, text_model, text_pretrained, arguments["device"])
        set_vocabulary(network, text_features(network, self.text_model, ["object"])[None])
        network.names = {0: "object"}
        self.prediction = Prediction(model, weights, _raw_predictor(), arguments)
        # The predictor has a copy of its own, on the device and in the type that it runs in.
        self.network: Any = model.predictor.model.model

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per phrase and box, phrases in the order of the text, boxes by falling score."""
        if said is None:
            raise SpecialistError(
                "the phrase detector finds the phrases of texts, and was given none",
                "name the specialist that writes captions under this one's `needs`",
            )
        texts = phrase_texts(images, statements(said, self.sources))
        passes = list(_passes(texts, self.max_phrases))
        found: dict[tuple[int, str], Boxes] = {}
        if passes:
            rows = {
                phrase: row for row, phrase in enumerate(dict.fromkeys(p for o in passes for p in o.phrases))
            }
            features = text_features(self.network, self.text_model, list(rows))
            for batch in self._batches(images, passes):
                vocabularies = [features[[rows[phrase] for phrase in one.phrases]] for one in batch]
                self._ground(images, batch, vocabularies, found)
        for text in texts:
            for phrase, _, _ in text.phrases:
                text.boxes[phrase] = found[text.image, _read(phrase)]
        return phrase_rows(images, texts)

    def _batches(self, images: Sequence[Image], passes: Sequence[_Pass]) -> Iterator[list[_Pass]]:
        """Passes over images that the model sees in one size, of similarly many phrases."""
        for group in self.prediction.groups([images[one.image] for one in passes]):
            alike = sorted((passes[i] for i in group), key=lambda one: len(one.phrases))
            for start in range(0, len(alike), self.max_passes):
                yield alike[start : start + self.max_passes]

    def _ground(
        self,
        images: Sequence[Image],
        batch: Sequence[_Pass],
        vocabularies: Sequence[Any],
        found: dict[tuple[int, str], Boxes],
    ) -> None:
        """Run one batch, with features (phrases, d) for each pass, and add each phrase's boxes to `found`."""
        import torch

        longest = max(len(v) for v in vocabularies)
        # Filled up with a phrase of its own: YOLO-World looks at an image by the best of its phrases,
        # which another's, or a blank, would change.
        filled = [torch.cat([v, v[:1].expand(longest - len(v), -1)]) for v in vocabularies]
        set_vocabulary(self.network, torch.stack(filled))
        results = self.prediction.predict([bgr(images[one.image]) for one in batch])
        for one, result in zip(batch, results, strict=True):
            boxes, scores, kinds = self._suppressed(result, len(one.phrases), images[one.image])
            for index, phrase in enumerate(one.phrases):
                best = np.flatnonzero(kinds == index)[: self.max_boxes]
                found[one.image, phrase] = (boxes[best], scores[best])

    def _suppressed(
        self, result: Any, count: int, image: Image
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
        """Boxes (n, 4) in the image's pixels, scores (n,) and phrases (n,) of a pass, by falling score."""
        import torch
        from ultralytics.utils import nms, ops

        with torch.inference_mode():
            # In float32, for suppression moves each phrase's boxes to a place of their own, far away.
            raw = result.raw[None, : 4 + count].float()
            (kept,) = nms.non_max_suppression(
                raw,
                self.confidence,
                self.iou,
                multi_label=True,
                max_det=_CANDIDATES,
                max_nms=_CANDIDATES,
                nc=count,
            )
            kept[:, :4] = ops.scale_boxes(result.seen, kept[:, :4], (image.height, image.width))
        rows = kept.cpu().numpy().astype(np.float32)
        # Beyond the image's edge, and clipped to nothing; or no numbers, which compare as false.
        rows = rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
        return rows[:, :4], rows[:, 4].clip(0, 1), rows[:, 5].astype(np.intp)


def _passes(texts: Sequence[PhraseText], most: int) -> Iterator[_Pass]:
    """The phrases of each image, those of all its texts together and each once, at most so many at a time."""
    by_image: dict[int, dict[str, None]] = {}
    for text in texts:
        by_image.setdefault(text.image, {}).update((_read(phrase), None) for phrase, _, _ in text.phrases)
    for image, phrases in by_image.items():
        listed = list(phrases)
        for start in range(0, len(listed), most):
            yield _Pass(image, listed[start : start + most])


def _read(phrase: str) -> str:
    """A phrase as the text models read it: in lower case, with single blanks."""
    return " ".join(phrase.lower().split())


@cache
def _raw_predictor() -> Any:
    """The library's predictor with what the network says of each image, before any suppression."""

    def as_they_come(self: Any, said: Any, seen: Any, pictures: Any) -> list[Any]:
        """`raw` is (4 + phrases, places), and more rows for masks; `seen` the height and width of the input."""
        every = said[0][0] if isinstance(said[0], tuple) else said[0]
        return [SimpleNamespace(raw=raw, seen=tuple(seen.shape[2:])) for raw in every]

    return type("RawPredictor", (predictor("detect"),), {"postprocess": as_they_come})
