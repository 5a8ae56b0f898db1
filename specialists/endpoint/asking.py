"""What a model is asked about an image, and the description in what it answers.

The same whoever runs the model: a server (`ChatTexts`), or this process (specialists.local_texts).
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.errors import ImageError, RecipeError, SpecialistError
from data_engine.image import Image
from specialists.endpoint.answer import cleaned, whole_sentences
from specialists.endpoint.checks import number, one_of, words
from specialists.endpoint.notes import FIELDS, notes
from specialists.endpoint.prompts import PROMPTS
from specialists.endpoint.template import Template
from specialists.said import Statement, statements


class Asking:
    """The arguments are those of `ChatTexts` by the same names. Raises RecipeError."""

    def __init__(
        self,
        granularity: str,
        prompt: str | None,
        system: str | None,
        images: str,
        sources: list[str] | None,
        max_statements: int,
        max_statement_length: int,
        max_length: int,
        unfinished: str,
    ) -> None:
        one_of("granularity", granularity, tuple(PROMPTS))
        one_of("images", images, ("none", "full"))
        one_of("unfinished", unfinished, ("cut", "drop"))
        for name, count, low, high in (
            ("max_statements", max_statements, 1, 1000),
            ("max_statement_length", max_statement_length, 10, 10_000),
            ("max_length", max_length, 10, 100_000),
        ):
            number(name, count, low, high, whole=True)
        self.granularity = granularity
        self.images = images
        self.sources = None if sources is None else frozenset(sources)
        self.max_statements = max_statements
        self.max_statement_length = max_statement_length
        self.max_length = max_length
        self.unfinished = unfinished
        self.template = Template(PROMPTS[granularity] if prompt is None else words("prompt", prompt), FIELDS)
        if images == "none" and self.template.fields <= {"width", "height"}:
            raise RecipeError(
                "the prompt has no field that says anything of the image, and no image is sent",
                f"use some of {', '.join('{' + name + '}' for name in FIELDS[:5])}, or set `images: full`",
            )
        self.system = None if system is None else words("system", system)

    def statements(self, said: pa.Table | None) -> dict[str, list[Statement]]:
        """What the images' prompts may show, by image id. Raises SpecialistError where there can be nothing."""
        if said is None and self.images == "none":
            raise SpecialistError(
                "a text is asked for from what others said, and nothing was given",
                "name specialists under this one's `needs`, or set `images: full`",
            )
        return {} if said is None else statements(said, self.sources)

    def prompt(self, image: Image, said: Sequence[Statement], most: int | None = None) -> str:
        """The words about one image, with at most `most` statements per field (`max_statements` if None).

        Raises ImageError where nothing was said that they could show, and the image is not shown either.
        """
        values, shown = notes(
            self.template.fields,
            said,
            (image.width, image.height),
            self.max_statements if most is None else most,
            self.max_statement_length,
        )
        if self.images == "none" and not shown:
            raise ImageError("nothing_said", "nothing was said of it that the prompt could show")
        return self.template.fill(values)

    def least(self) -> str:
        """The words about an image of which nothing was said: no prompt is shorter by much."""
        values, _ = notes(self.template.fields, (), (1, 1), 1, self.max_statement_length)
        return self.template.fill(values)

    def description(self, answer: str, ended: str, limit: str | None) -> str:
        """The description in an answer, in whole sentences. Raises ImageError where there is none.

        `ended` tells a person how the answer ended; `limit` names the limit that cut it off, if one did.
        """
        text = cleaned(answer)
        if not text:
            raise ImageError("empty_answer", f"the answer has no text ({ended})")
        if limit is None and len(text) <= self.max_length:
            return text
        whole = whole_sentences(text, self.max_length) if self.unfinished == "cut" else ""
        if not whole:
            raise ImageError("unfinished_answer", f"it reached {limit or 'max_length'}: {text[:100]!r}")
        return whole
