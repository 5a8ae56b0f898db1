"""How probable a Florence-2 finds what others said: rows of scores, from one teacher-forced pass per answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.florence2.likelihood_questions import (
    BOXES,
    CAPTIONS,
    NAMED,
    NAMES,
    PHRASES,
    TOLD,
    Part,
    questions,
)
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import chosen
from specialists.florence2.teacher_forcing import Likely
from specialists.said import statements
from specialists.sentences import check_installed

VERSION = 1

TASKS = (*CAPTIONS.values(), *NAMES.values(), BOXES, PHRASES)
"""The prompts that judge statements."""

_LEAST_LIKELY = 2
"""Tokens of a text of the image that decide how likely it is."""


class Likelihood:
    """Scores in 0..1 of what the sources said: rows that hang on the statements, without text or box.

    Every token counts as p(token) / p(likeliest token) of the student's, so that 1 is what it would have said
    itself. The granularity of a row is its measure:

    - `named`, of a region's text: as the answer to REGION_TO_CATEGORY (a `phrase`) or REGION_TO_DESCRIPTION (a
      `brief`) at its box; the product over its tokens and the answer's end.
    - `located`, of the box of a region or phrase: as the answer to OPEN_VOCABULARY_DETECTION of its label or
      CAPTION_TO_PHRASE_GROUNDING of its text; the geometric mean of its coordinates, each of which counts as the
      bins up to `window` from it. The boxes of a label, or of a text, are read in the order that is taught, each
      after those before it.
    - `told`, of a text of the image: as the answer to its caption prompt; the geometric mean of its two least likely
      tokens, for a text with one wrong word is wrong (docs/likelihood.md has the figures).

    `sources`: whose statements are judged, of those under `needs`. `tasks`: which prompts are asked; without
    REGION_TO_DESCRIPTION, for example, descriptions are not judged. `max_prompts_per_batch` bounds memory. Raises
    RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        sources: list[str],
        tasks: list[str] | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        max_prompts_per_batch: int = 32,
        window: int = 20,
    ) -> None:
        self.tasks = {task.name: task for task in chosen(list(TASKS) if tasks is None else tasks)}
        for name in self.tasks:
            if name not in TASKS:
                raise RecipeError(f"{name} judges no statement", f"choose among {', '.join(TASKS)}")
        if not isinstance(sources, list) or not sources:
            raise RecipeError("Likelihood needs a list of sources", "name those whose statements it judges")
        for what, value, least in (
            ("max_prompts_per_batch", max_prompts_per_batch, 1),
            ("window", window, 0),
        ):
            if value < least:
                raise RecipeError(f"{what} is {value}", f"it must be at least {least}")
        if PHRASES in self.tasks:
            check_installed()  # for a text too long for a prompt; missing, it fails here and not at that text
        self.sources = frozenset(sources)
        self.batch = max_prompts_per_batch
        self.model = Florence2Model(model, revision, device, dtype, window)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """Score rows of each image. Raises SpecialistError when nobody's statements are given."""
        if said is None:
            raise SpecialistError("Likelihood has nothing to judge", "name its sources under `needs`")
        given = statements(said, self.sources)
        asked = [
            question
            for i, image in enumerate(images)
            for question in questions(
                self.model, self.tasks, i, (image.width, image.height), given.get(image.image_id, [])
            )
        ]
        made: list[list[Annotation]] = [[] for _ in images]
        if not asked:
            return made
        used = sorted({question.asked.image for question in asked})
        features = self.model.features([images[i].pixels for i in used], self.batch)
        place = {image: i for i, image in enumerate(used)}
        judged = self.model.likelihoods(
            features, [replace(q.asked, image=place[q.asked.image]) for q in asked], self.batch
        )
        for question, likely in zip(asked, judged, strict=True):
            made[question.asked.image] += [_row(part, likely) for part in question.parts]
        return made


def told(doubt: NDArray[np.float32]) -> float:
    """How likely a text is by the log-ratios of its tokens and its end: the measure `told`, in 0..1."""
    return float(np.exp(np.sort(doubt.astype(np.float64))[:_LEAST_LIKELY].mean()))


def _row(part: Part, likely: Likely) -> Annotation:
    doubt = likely.doubt[part.first : part.last].astype(np.float64)
    if part.measure == TOLD:
        score = told(likely.doubt[part.first : part.last])
    else:
        score = float(np.exp(doubt.sum() if part.measure == NAMED else doubt.mean()))
    return Annotation(part.about.kind, None, part.measure, part.about.reference, score=score)
