"""Texts by a language or multimodal model that runs here, in the process itself.

FLD-5B's detailed and more detailed texts come from a large model that is prompted with what is already said of an
image, for a small subset of the images (arXiv 2311.06242, section 4.1). This is the twin of
`specialists.endpoint:ChatTexts`, which asks a server: the same sample, prompts, notes and cleaning of answers
(docs/endpoint.md), with a checkpoint of transformers in the place of the server.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import PIL.Image
import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import ImageError, RecipeError
from data_engine.image import Image
from specialists.endpoint.asking import Asking
from specialists.endpoint.checks import a_text, number
from specialists.endpoint.picture import shrunk
from specialists.endpoint.prompts import SYSTEM
from specialists.endpoint.sample import in_sample
from specialists.language_model import LanguageModel, Question, Reply
from specialists.said import Statement

VERSION = 1

log = logging.getLogger(__name__)


class LocalTexts:
    """A text of the given granularity for each image of a sample; nothing for the others.

    - `model`: a name on the hub or a folder, and a `revision` of it. With `images: none` a language model, which
      is told what was said of an image (by `needs`); with `full` a multimodal one with a chat template, which is
      shown the image too, shrunk to `max_side` pixels. A language model without a chat template goes on from the
      plain words.
    - `granularity`: `detailed` or `more_detailed`. One specialist of a recipe writes one of them.
    - `share`, `prompt`, `system`, `sources`, `max_statements`, `max_statement_length`, `max_length`,
      `unfinished` and their defaults: as in `ChatTexts`. With one `share` both choose the same images.
    - `max_new_tokens`: answers are cut there, and are then `unfinished`.
    - `temperature`: 0 takes the likeliest token. Above it tokens are drawn, by a stream of numbers that the image's
      id begins: the same in every run, whatever else is in the batch.
    - `max_batch`: prompts that go through the model at once; it bounds memory.
    - `device`; `dtype`: `auto`, float32, float16 or bfloat16, as `LanguageModel` says.

    A prompt that is longer than the model's context, less `max_new_tokens`, is made with fewer statements per
    field: as many as fit. It says how many it leaves out, and the image has a failure `too_long` beside its text.
    Where not one statement per field fits, the image fails with `refused`.

    Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        granularity: str,
        *,
        revision: str | None = None,
        share: float = 0.01,
        prompt: str | None = None,
        system: str | None = SYSTEM,
        images: str = "none",
        max_side: int = 768,
        sources: list[str] | None = None,
        max_statements: int = 30,
        max_statement_length: int = 200,
        temperature: float = 0.0,
        max_new_tokens: int = 400,
        max_length: int = 2000,
        unfinished: str = "cut",
        max_batch: int = 8,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        self.needs_pixels = images == "full"
        self.asking = Asking(
            granularity,
            prompt,
            system,
            images,
            sources,
            max_statements,
            max_statement_length,
            max_length,
            unfinished,
        )
        a_text("model", model)
        number("share", share, 0, 1)
        number("temperature", temperature, 0, 2)
        for name, count, low, high in (
            ("max_side", max_side, 16, 8192),
            ("max_new_tokens", max_new_tokens, 1, 1_000_000),
            ("max_batch", max_batch, 1, 1_000_000),
        ):
            number(name, count, low, high, whole=True)
        self.share = share
        self.max_side = max_side
        self.model = LanguageModel(
            model,
            revision,
            images == "full",
            self.asking.system,
            max_new_tokens,
            temperature,
            max_batch,
            device,
            dtype,
        )
        self.name = model
        room = self.model.room
        picture = PIL.Image.new("RGB", (64, 64)) if images == "full" else None
        least = self.model.question(self.asking.least(), picture).length
        if room is not None and least > room:
            raise RecipeError(
                f"{model} takes {self.model.positions} tokens in all, and the prompt without a statement has {least} "
                f"and max_new_tokens is {max_new_tokens}",
                "lower max_new_tokens, shorten the prompt, or take a model with a longer context",
            )

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation | ImageError]]:
        """One text per image of the sample, with no parent; or, in its place, why there is none."""
        given = self.asking.statements(said)
        made: list[list[Annotation | ImageError]] = [[] for _ in images]
        asked: dict[int, tuple[Question, ImageError | None]] = {}
        for i, image in enumerate(images):
            if in_sample(image.image_id, self.share):
                try:
                    asked[i] = self._question(image, given.get(image.image_id, []))
                except ImageError as error:
                    made[i].append(error)
        replies = self.model.answers(
            [question for question, _ in asked.values()],
            [_seed(self.asking.granularity, images[i]) for i in asked],
        )
        for (i, (_, cut)), reply in zip(asked.items(), replies, strict=True):
            try:
                made[i].append(Annotation("text", self._text(reply), self.asking.granularity))
            except ImageError as error:
                made[i].append(error)
            if cut is not None:
                made[i].append(cut)
        self._log(made, replies)
        return made

    def _question(self, image: Image, said: Sequence[Statement]) -> tuple[Question, ImageError | None]:
        """The question about an image and, where it had to be cut to the model's context, what tells so.

        Raises ImageError where there is nothing to ask from, or no cut makes it fit.
        """
        picture = shrunk(image, self.max_side) if self.asking.images == "full" else None
        room = self.model.room

        def asked(most: int) -> Question:
            return self.model.question(self.asking.prompt(image, said, most), picture)

        question = asked(self.asking.max_statements)
        if room is None or question.length <= room:
            return question, None
        fits: Question | None = None
        shown, too_many = 0, min(self.asking.max_statements, max(len(said), 1))
        while too_many - shown > 1:
            middle = (shown + too_many) // 2
            tried = asked(middle)
            if tried.length <= room:
                fits, shown = tried, middle
            else:
                too_many = middle
        if fits is None:
            raise ImageError(
                "refused",
                f"its prompt has {question.length} tokens, with one statement per field still more than the {room} "
                f"that the model's context leaves beside max_new_tokens {self.model.max_new_tokens}",
            )
        return fits, ImageError(
            "too_long",
            f"its prompt had {question.length} tokens and was cut to {shown} statements per field, to fit in {room}",
        )

    def _text(self, reply: Reply) -> str:
        """The description in a reply. Raises ImageError."""
        if reply.finished:
            return self.asking.description(reply.text, "the model ended it", None)
        return self.asking.description(reply.text, "it was cut off", "max_new_tokens")

    def _log(self, made: Sequence[Sequence[Annotation | ImageError]], replies: Sequence[Reply]) -> None:
        """One line per batch that had anything to ask; counts only."""
        if not replies:
            return
        log.info(
            "%s: %d texts of %d answers (%d of them unfinished), %d tokens",
            self.name,
            sum(isinstance(one, Annotation) for some in made for one in some),
            len(replies),
            sum(not reply.finished for reply in replies),
            sum(reply.tokens for reply in replies),
        )


def _seed(granularity: str, image: Image) -> int:
    digest = hashlib.sha256(f"local texts {granularity} {image.image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
