"""Grounding DINO: boxes for the noun phrases of each text of an image.

FLD-5B's text-phrase-region triplets are made this way (arXiv 2311.06242, section 4.1): a parser finds
the noun phrases of a text, and a grounding detector (Liu et al., arXiv 2303.05499) their boxes.

All phrases of a text go through the model in one pass, and the passes of a batch of images run
together. Each phrase has a score of its own: the mean of the sigmoids at its tokens. (The library's
post-processing glues the tokens above a threshold into labels, which need be no phrase of the text.)

Texts longer than the model's 256 tokens need no splitting at sentences here: the model never reads the text,
only its phrases, in as many passes as they fill. A phrase lies within one sentence, as the parser sees them,
and is never divided between two passes. (One of more than 253 tokens by itself is cut there.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import MissingPackageError, ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.noun_phrases import noun_phrases
from specialists.phrase_texts import PhraseText, phrase_rows, phrase_texts
from specialists.pretrained import device_and_dtype, load_processor, load_weights, read_config
from specialists.said import statements

VERSION = 1


@dataclass(slots=True, eq=False)
class _Pass:
    """Some phrases of a text for one forward pass. `tokens[i]` are phrase i's positions in `ids`."""

    text: PhraseText
    ids: list[int]
    phrases: list[str]
    tokens: list[range]


class GroundingDino:
    """Noun phrases of the descriptions in `said`, with their boxes.

    - `model`: a name on the hub or a folder, and a `revision` of it.
    - `box_threshold`: a box counts if any token reaches it; `text_threshold`: it is given to every
      phrase whose own score reaches it. 0.35 and 0.25 are the values of the authors' demo.
    - `max_boxes_per_phrase`: the best ones; FLD-5B has 1 to 2 regions per phrase, crowds have more.
    - `max_passes_per_batch` bounds memory. Only images that the model sees in one size share a batch,
      so that none is padded and its boxes cannot depend on its neighbours.
    - `sources`: of the statements of `needs`, only those by these specialists.

    Runs in float32, the type that the checkpoints are published in. Raises RecipeError, ModelLoadError
    or MissingPackageError.
    """

    def __init__(
        self,
        model: str = "IDEA-Research/grounding-dino-base",
        revision: str | None = None,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
        max_boxes_per_phrase: int = 20,
        max_passes_per_batch: int = 8,
        device: str | None = None,
        sources: list[str] | None = None,
    ) -> None:
        try:
            import torch
            from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor
        except ImportError as error:
            raise MissingPackageError.of(error.name or "transformers", "transformers") from error
        for name, value in (("box_threshold", box_threshold), ("text_threshold", text_threshold)):
            if not 0 <= value <= 1:
                raise RecipeError(f"{name} is {value}", "it must lie in 0..1")
        if max_boxes_per_phrase < 1 or max_passes_per_batch < 1:
            raise RecipeError(
                "max_boxes_per_phrase and max_passes_per_batch must be at least 1", "raise them"
            )
        self.box_threshold = box_threshold
        self.text_threshold = text_threshold
        self.max_boxes = max_boxes_per_phrase
        self.max_passes = max_passes_per_batch
        self.sources = None if sources is None else frozenset(sources)

        noun_phrases([""])  # a missing parser fails here, once, and not image by image
        kind = read_config(model, revision).get("model_type")
        if kind != "grounding-dino":
            raise ModelLoadError(
                f"{model} is a checkpoint of {kind!r}, not of Grounding DINO",
                "give one of IDEA-Research/grounding-dino-tiny and -base, or a folder of that kind",
            )
        torch.set_flush_denormal(True)
        self.device, dtype = device_and_dtype(device, "float32")
        network = load_weights(GroundingDinoForObjectDetection, model, revision, dtype)
        self.network: Any = network.to(self.device).eval()
        processor = load_processor(GroundingDinoProcessor, model, revision)
        self.image_processor: Any = processor.image_processor
        self.tokenizer: Any = processor.tokenizer
        self.max_tokens = int(self.network.config.max_text_len)
        self.stop = int(self.tokenizer.convert_tokens_to_ids("."))
        # The model cuts the text into blocks of attention at these, wherever they come from.
        self.delimiters = frozenset(self.tokenizer.convert_tokens_to_ids([".", "?"])) | frozenset(
            self.tokenizer.all_special_ids
        ) - {self.tokenizer.unk_token_id}

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """One row per phrase and box, phrases in the order of the text, boxes by falling score."""
        if said is None:
            raise SpecialistError(
                "Grounding DINO finds the phrases of texts, and was given none",
                "name the specialist that writes captions under this one's `needs`",
            )
        texts = phrase_texts(images, statements(said, self.sources))
        passes = [p for text in texts for p in self._passes(text)]
        for batch, pixels in self._batches(images, passes):
            self._ground(images, batch, pixels)
        return phrase_rows(images, texts)

    def _passes(self, text: PhraseText) -> Iterator[_Pass]:
        """`[CLS] phrase . phrase . [SEP]`, each phrase once, in as few passes as the model's length asks.

        Every phrase ends with ".": without it the last one would get no attention. Full stops and question
        marks inside a phrase ("St. Louis") are left out, for they would cut it in two.
        """
        ids: list[int] = [self.tokenizer.cls_token_id]
        phrases: list[str] = []
        tokens: list[range] = []
        for phrase in dict.fromkeys(phrase for phrase, _, _ in text.phrases):
            words = self.tokenizer(phrase.lower(), add_special_tokens=False)["input_ids"]
            words = [i for i in words if i not in self.delimiters][: self.max_tokens - 3]
            if not words:
                continue
            if len(ids) + len(words) + 2 > self.max_tokens:
                yield _Pass(text, [*ids, self.tokenizer.sep_token_id], phrases, tokens)
                ids, phrases, tokens = [self.tokenizer.cls_token_id], [], []
            phrases.append(phrase)
            tokens.append(range(len(ids), len(ids) + len(words)))
            ids += [*words, self.stop]
        if phrases:
            yield _Pass(text, [*ids, self.tokenizer.sep_token_id], phrases, tokens)

    def _batches(self, images: Sequence[Image], passes: Sequence[_Pass]) -> Iterator[tuple[list[_Pass], Any]]:
        """Passes over images of one size, of similar length, with each pass's pixels (3, h, w)."""
        pixels = {i: self._pixels(images[i]) for i in sorted({p.text.image for p in passes})}
        by_size: dict[tuple[int, ...], list[_Pass]] = {}
        for one in passes:
            by_size.setdefault(tuple(pixels[one.text.image].shape), []).append(one)
        for alike in by_size.values():
            alike.sort(key=lambda p: len(p.ids))
            for start in range(0, len(alike), self.max_passes):
                batch = alike[start : start + self.max_passes]
                yield batch, [pixels[p.text.image] for p in batch]

    def _pixels(self, image: Image) -> Any:
        """The image as the model sees it. Copied, for decoded pixels are read-only and torch wants its own;
        the layout is stated, for of an image 3 pixels high it could not be told."""
        return self.image_processor(
            image.pixels.copy(), return_tensors="pt", input_data_format="channels_last"
        )["pixel_values"][0]

    def _ground(self, images: Sequence[Image], batch: Sequence[_Pass], pixels: Sequence[Any]) -> None:
        """Run one batch and put each phrase's boxes into its text."""
        import torch

        longest = max(len(p.ids) for p in batch)
        ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, one in enumerate(batch):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            mask[row, : len(one.ids)] = 1
        with torch.inference_mode():
            output = self.network(
                pixel_values=torch.stack(list(pixels)).to(self.device),
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
            )
            probabilities = output.logits.float().sigmoid().cpu().numpy()
            centred = output.pred_boxes.float().cpu().numpy()
        for one, by_token, relative in zip(batch, probabilities, centred, strict=True):
            image = images[one.text.image]
            boxes = _corners(relative, image.width, image.height)
            sound = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            sound &= by_token.max(axis=1) > self.box_threshold
            for phrase, tokens in zip(one.phrases, one.tokens, strict=True):
                scores = by_token[:, tokens.start : tokens.stop].mean(axis=1)
                kept = np.flatnonzero(sound & (scores > self.text_threshold))
                best = kept[np.argsort(-scores[kept], kind="stable")][: self.max_boxes]
                one.text.boxes[phrase] = (boxes[best], scores[best])


def _corners(boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Centre and size relative to the image, (n, 4), to corners in its pixels, cut at its edges."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    size = np.array([width, height], np.float32)
    corners: NDArray[np.float32] = np.concatenate([centre - half, centre + half], axis=1) * np.tile(size, 2)
    return np.clip(corners, 0, np.tile(size, 2))
