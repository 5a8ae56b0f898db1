"""Florence-2 as a specialist: which prompts a batch of images calls for, and in which order.

A task may ask about what was said before (a text to ground, a region to describe). Where the recipe
gives `needs`, those statements are taken; where it gives none, this specialist's own: one recipe
entry `tasks: [CAPTION, CAPTION_TO_PHRASE_GROUNDING, REFERRING_EXPRESSION_SEGMENTATION]` goes from
pixels to masks in three waves over the same image features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from data_engine.annotation import Annotation
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from specialists.florence2.grammar import parse
from specialists.florence2.locations import written
from specialists.florence2.long_texts import part_rows, text_parts
from specialists.florence2.model import Answer, Florence2Model
from specialists.florence2.prompts import Takes, Task, chosen, prompt_text
from specialists.florence2.renaming import renamed
from specialists.florence2.rows import rows
from specialists.said import Statement, statement_of, statements
from specialists.sentences import check_installed

_WAVES = (
    (Takes.IMAGE, Takes.LABEL),
    (Takes.TEXT, Takes.REGION),
    (Takes.PHRASE, Takes.BOX),
)


@dataclass(slots=True, eq=False)
class _Prompt:
    """One prompt; `about` are the statements that it was made from, `label` the recipe's.

    A text that is too long for a prompt is a statement in parts: `starts` says of each of `about` where in
    its text it begins.
    """

    image: int
    task: Task
    ids: list[int]
    about: list[Statement] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    label: str | None = None


class Florence2:
    """Any of the released tasks, for a batch of images at once.

    - `model`: a name on the hub or a folder, in the native format (florence-community/Florence-2-*, or
      what this project trained), and a `revision` of it.
    - `tasks`: names from `prompts.TASKS`. `labels`: what OPEN_VOCABULARY_DETECTION looks for.
    - `num_beams`: 3, as in the model card and the released generation settings: the published figures
      are of that search. 1 is greedy, and takes a third of the decoder's memory and arithmetic.
    - `max_new_tokens`: the model card's 1,024, never more than the decoder has positions.
    - `max_prompts_per_batch` bounds memory: that many images are encoded, and that many prompts
      answered, at one time, however many a batch of images calls for.
    - `min_score`: boxes and masks that score less are not stored at all. 0 keeps all, for filters can
      drop them later with a reason; texts are always kept.
    - `sources`: of the statements of `needs`, only those by these specialists.
    - `score_window`: a coordinate's probability is that of all bins up to so many from it, for a coordinate that is
      nearly right is right. 20 of the 1,000 bins are 2 % of a side. 0 counts the very bin alone.
    - `rename`: things that OD finds bear the name that REGION_TO_CATEGORY gives each (`renaming`); both are among `tasks`.
    - `constrained`: answers keep to their task's grammar (`constrained`): no box lacks a coordinate or an area, and what
      is begun is finished within the limit. Answers that are well-formed by themselves stay as they are.

    Scores are exp(mean log-probability) of a text's tokens or of coordinates, and the geometric mean of
    both where something has a label and a place (`model`). Raises RecipeError, ModelLoadError or MissingPackageError.
    """

    def __init__(
        self,
        model: str,
        tasks: list[str],
        revision: str | None = None,
        labels: list[str] | None = None,
        device: str | None = None,
        dtype: str = "auto",
        num_beams: int = 3,
        max_new_tokens: int = 1024,
        max_prompts_per_batch: int = 32,
        min_score: float = 0.0,
        sources: list[str] | None = None,
        score_window: int = 20,
        constrained: bool = True,
        rename: bool = False,
    ) -> None:
        self.tasks = chosen(tasks)
        self.labels = [label for label in dict.fromkeys(labels or []) if prompt_text(label)]
        wants_labels = any(task.takes is Takes.LABEL for task in self.tasks)
        if wants_labels != bool(self.labels):
            raise RecipeError(
                "OPEN_VOCABULARY_DETECTION needs labels"
                if wants_labels
                else "labels are given, but no task uses them",
                "give both the task OPEN_VOCABULARY_DETECTION and its `labels`, or neither",
            )
        for name, value, least in (
            ("num_beams", num_beams, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("max_prompts_per_batch", max_prompts_per_batch, 1),
            ("score_window", score_window, 0),
        ):
            if value < least:
                raise RecipeError(f"{name} is {value}", f"it must be at least {least}")
        if rename and not {"OD", "REGION_TO_CATEGORY"} <= {task.name for task in self.tasks}:
            raise RecipeError(
                "rename needs the tasks OD and REGION_TO_CATEGORY",
                "add both to `tasks`, or leave `rename` out",
            )
        if any(task.takes is Takes.TEXT for task in self.tasks):
            check_installed()  # for a text too long for a prompt; missing, it fails here and not at that text
        self.num_beams = num_beams
        self.max_new_tokens = max_new_tokens
        self.max_prompts_per_batch = max_prompts_per_batch
        self.min_score = min_score
        self.constrained = constrained
        self.rename = rename
        self.sources = None if sources is None else frozenset(sources)
        self.model = Florence2Model(model, revision, device, dtype, score_window)

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        """The rows of each image. Raises SpecialistError when a task has nothing that it could be about."""
        made: list[list[Annotation]] = [[] for _ in images]
        if not images:
            return made
        given = None if said is None else statements(said, self.sources)
        self._check_inputs(given is not None)
        features: dict[int, Any] = {}
        waves = _WAVES if given is None else (sum(_WAVES, ()),)
        for wave in waves:
            prompts: list[_Prompt] = []
            for i, image in enumerate(images):
                known = [statement_of(a) for a in made[i]] if given is None else given.get(image.image_id, [])
                for task in self.tasks:
                    if task.takes in wave:
                        prompts += self._prompts(i, image, task, known)
            # Only images that are asked about, and each once: a later wave asks about the same ones.
            new = sorted({prompt.image for prompt in prompts} - features.keys())
            if new:
                pixels = [images[i].pixels for i in new]
                features.update(
                    zip(new, self.model.features(pixels, self.max_prompts_per_batch), strict=True)
                )
            for prompt, answer in zip(prompts, self._answers(features, prompts), strict=True):
                image = images[prompt.image]
                size = (image.width, image.height)
                found = parse(answer.ids, prompt.task.grammar, self.model.vocabulary, size, answer.truncated)
                if prompt.task.takes is Takes.TEXT:
                    parts = zip(prompt.about, prompt.starts, strict=True)
                    said_now = part_rows(prompt.task, found, answer, size, parts, made[prompt.image])
                else:
                    said_now = rows(prompt.task, found, answer, size, prompt.about, prompt.label)
                made[prompt.image] += self._kept(said_now)
        return [renamed(image_rows) for image_rows in made] if self.rename else made

    def _check_inputs(self, given: bool) -> None:
        """Without `needs`, a task about statements needs another task that makes such statements."""
        if given:
            return
        made_by = {
            Takes.TEXT: {"CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION"},
            Takes.PHRASE: {"CAPTION_TO_PHRASE_GROUNDING"},
            Takes.REGION: {"OD", "DENSE_REGION_CAPTION", "REGION_PROPOSAL", "OCR_WITH_REGION", "OPEN_VOCABULARY_DETECTION"},
        }  # fmt: skip
        made_by[Takes.BOX] = made_by[Takes.REGION] | made_by[Takes.PHRASE]
        names = {task.name for task in self.tasks}
        for task in self.tasks:
            if task.takes in made_by and not names & made_by[task.takes]:
                raise SpecialistError(
                    f"{task.name} is about {task.takes.value}, and nothing gives it any",
                    "name the specialist that does under `needs`, "
                    f"or add one of the tasks {', '.join(sorted(made_by[task.takes]))}",
                )

    def _prompts(self, i: int, image: Image, task: Task, known: Sequence[Statement]) -> list[_Prompt]:
        """A task's prompts for one image; statements that would be asked about alike share one."""
        if task.takes is Takes.IMAGE:
            return [_Prompt(i, task, self.model.prompt_ids(task))]
        if task.takes is Takes.LABEL:
            return [
                _Prompt(i, task, self.model.prompt_ids(task, label), label=label) for label in self.labels
            ]
        by_input: dict[str, _Prompt] = {}
        for statement in known:
            if not _suits(task, statement):
                continue
            whole = task.takes is not Takes.TEXT
            for part, start in [(statement, 0)] if whole else text_parts(self.model, task, statement):
                if task.takes in (Takes.TEXT, Takes.PHRASE):
                    said = prompt_text(part.text or "")
                else:
                    said = written(part.box or (), (image.width, image.height))
                if said and said not in by_input:
                    by_input[said] = _Prompt(i, task, self.model.prompt_ids(task, said))
                if said:
                    by_input[said].about.append(part)
                    by_input[said].starts.append(start)
        return list(by_input.values())

    def _answers(self, features: dict[int, Any], prompts: Sequence[_Prompt]) -> list[Answer]:
        """Answers in the order of `prompts`, worked out together with others that take about as long."""
        answers: dict[int, Answer] = {}
        by_settings: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            no_repeat = self.model.captions_no_repeat if prompt.task.captions else 0
            by_settings.setdefault(no_repeat, []).append(i)
        for no_repeat, members in by_settings.items():
            order = by_length([(prompts[i].task, prompts[i].ids) for i in members])
            members = [members[i] for i in order]
            found = self.model.answers(
                [features[prompts[i].image] for i in members],
                [prompts[i].ids for i in members],
                self.num_beams,
                self.max_new_tokens,
                no_repeat,
                self.max_prompts_per_batch,
                [prompts[i].task.grammar for i in members] if self.constrained else None,
            )
            answers.update(zip(members, found, strict=True))
        return [answers[i] for i in range(len(prompts))]

    def _kept(self, made: list[Annotation]) -> list[Annotation]:
        """Without located statements below `min_score`, nor what hangs on one of them."""
        kept: list[Annotation] = []
        dropped: set[int] = set()
        for row in made:
            if (row.box is not None and (row.score or 0.0) < self.min_score) or id(row.parent) in dropped:
                dropped.add(id(row))
            else:
                kept.append(row)
        return kept


def by_length(prompts: Sequence[tuple[Task, Sequence[int]]]) -> list[int]:
    """The order to ask prompts in: long answers first, so that no long one is left over at the end; of those
    prompts of about a length together, for they are padded alike."""
    return sorted(range(len(prompts)), key=lambda i: (-prompts[i][0].length, len(prompts[i][1])))


def _suits(task: Task, statement: Statement) -> bool:
    """Whether a task can be about a statement. Masks, and further texts of a region, are no regions."""
    if statement.masked:
        return False
    if task.takes is Takes.TEXT:
        return statement.describes
    if task.takes is Takes.PHRASE:
        return statement.kind == "phrase" and bool((statement.text or "").strip())
    if statement.box is None:
        return False
    region = statement.kind == "region" and statement.parent is None
    return region or (task.takes is Takes.BOX and statement.kind == "phrase")
