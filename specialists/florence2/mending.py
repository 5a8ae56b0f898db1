"""Texts that others wrote, with single words exchanged by a Florence-2 that doubts them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.florence2.exchanging import Text, exchanged
from specialists.florence2.grammar import clean_label
from specialists.florence2.likelihood_questions import CAPTIONS
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import chosen
from specialists.said import statements

VERSION = 2


class Mended:
    """For each text of `sources` that has words the model doubts, the same text with those words exchanged.

    A caption with one wrong attribute is mostly right. To write a new one a small student must see everything right
    that the caption tells; to mend it, one word. A word is looked at where one of its tokens is less than `below`
    times as likely as the likeliest token there (`Likelihood` has the measure). The model then writes as many words
    from there on, and the text with them is taken if that makes its `told` at least `gain` times as high. After at
    most `exchanges` words a text is left as it is; one in which nothing is exchanged has no row.

    The texts have the granularity of the one that they mend, and their `told` as the score. `tasks` are caption
    prompts: texts of other granularities are not looked at. `max_prompts_per_batch` bounds memory. Raises RecipeError,
    ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        sources: list[str],
        tasks: list[str] | None = None,
        below: float = 0.3,
        gain: float = 1.2,
        exchanges: int = 2,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_prompts_per_batch: int = 32,
    ) -> None:
        known = list(CAPTIONS.values())
        asked = {task.name: task for task in chosen(known if tasks is None else tasks)}
        for name in asked:
            if name not in known:
                raise RecipeError(f"{name} writes no caption", f"choose among {', '.join(known)}")
        if not isinstance(sources, list) or not sources:
            raise RecipeError("Mended needs a list of sources", "name those whose texts it mends")
        if not 0 < below < 1 or not gain >= 1:
            raise RecipeError(
                "below must lie between 0 and 1, and gain be at least 1", "correct the recipe's `args`"
            )
        if exchanges < 1 or max_prompts_per_batch < 1:
            raise RecipeError(
                "exchanges and max_prompts_per_batch must be at least 1", "correct the recipe's `args`"
            )
        self.tasks = {kind: asked[name] for kind, name in CAPTIONS.items() if name in asked}
        self.sources = frozenset(sources)
        self.below, self.gain, self.exchanges = below, gain, exchanges
        self.batch = max_prompts_per_batch
        self.model = Florence2Model(model, revision, device, dtype)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """The mended texts of each image. Raises SpecialistError when nobody's statements are given."""
        if said is None:
            raise SpecialistError("Mended has no texts to mend", "name its sources under `needs`")
        given = statements(said, self.sources)
        texts: list[Text] = []
        about: list[tuple[int, str]] = []
        for number, image in enumerate(images):
            for statement in given.get(image.image_id, []):
                task = self.tasks.get(statement.granularity or "") if statement.describes else None
                text = clean_label(statement.text or "")
                if task is not None and text and statement.granularity is not None:
                    texts.append(Text(number, tuple(self.model.prompt_ids(task)), text))
                    about.append((number, statement.granularity))
        made: list[list[Annotation]] = [[] for _ in images]
        if not texts:
            return made
        used = sorted({text.image for text in texts})
        features = self.model.features([images[i].pixels for i in used], self.batch)
        place = {image: i for i, image in enumerate(used)}
        asked = [Text(place[text.image], text.prompt, text.words) for text in texts]
        found = exchanged(self.model, features, asked, self.below, self.gain, self.exchanges, self.batch)
        for (number, granularity), before, (text, score) in zip(about, texts, found, strict=True):
            if text != before.words:
                made[number].append(Annotation("text", text, granularity, score=score))
        return made
