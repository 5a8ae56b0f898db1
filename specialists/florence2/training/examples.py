"""Statements of one image as token ids: a few tasks drawn by weight, each with one prompt and its answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from data_engine.annotation import Annotation
from specialists.florence2.long_texts import spans_that_fit
from specialists.florence2.prompts import TASKS, prompt_text
from specialists.florence2.scenes_examples import TASK_WEIGHTS
from specialists.florence2.sequences import drawn_examples

_GROUNDING = "CAPTION_TO_PHRASE_GROUNDING"

DEFAULT_WEIGHTS = TASK_WEIGHTS


@dataclass(frozen=True, slots=True)
class Taught:
    """Token ids, each with its start and end, but that a cut answer has no end."""

    prompt: list[int]
    answer: list[int]


class Writer:
    """Writes what an image teaches. `tokenizer` is a definition in JSON, with all added tokens.

    `weights` says how often each task comes up; `prompts` is the most of one image. A prompt has at most
    `prompt_room` tokens, an answer `answer_room`:

    - A text whose grounding prompt has no room is split at its sentences, each part with its own phrases.
    - An answer that has no room is cut, and its end token with it: all that is left is still what comes next,
      and that it ends there is not taught.
    - Any other prompt without room is left out.

    `counts` says how often each happened.
    """

    def __init__(
        self,
        tokenizer: str,
        weights: Mapping[str, float],
        prompts: int,
        prompt_room: int,
        answer_room: int,
        shuffled: bool,
    ) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_str(tokenizer)
        # A padding or truncation that the definition brings would reach what is taught.
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.weights = {task: weight for task, weight in weights.items() if weight > 0}
        self.prompts, self.shuffled = prompts, shuffled
        self.prompt_room, self.answer_room = prompt_room, answer_room
        self.counts: Counter[str] = Counter()

    def taught(
        self, annotations: Sequence[Annotation], size: tuple[int, int], rng: np.random.Generator
    ) -> Iterator[Taught]:
        """At most `prompts` examples of one image of (width, height), each of another task."""
        if _GROUNDING in self.weights:
            annotations = self._with_parts(annotations)
        wanted = self.prompts
        for example in drawn_examples(annotations, size, self.weights, rng, self.shuffled):
            if not wanted:
                return
            prompt, answer = (e.ids for e in self.tokenizer.encode_batch([example.prompt, example.answer]))
            if len(prompt) > self.prompt_room:
                self.counts["left out"] += 1
                continue
            if len(answer) > self.answer_room:
                self.counts["cut"] += 1
                answer = answer[: self.answer_room]
            self.counts[example.task] += 1
            wanted -= 1
            yield Taught(prompt, answer)

    def _fits(self, text: str) -> bool:
        sentence = TASKS[_GROUNDING].prompt(prompt_text(text))
        # No text has more tokens than bytes, and two are added: most need not be counted.
        if len(sentence.encode()) + 2 <= self.prompt_room:
            return True
        return len(self.tokenizer.encode(sentence).ids) <= self.prompt_room

    def _with_parts(self, annotations: Sequence[Annotation]) -> Sequence[Annotation]:
        """The statements, in which phrases of texts that are too long hang on a part of their text."""
        texts = {
            id(row.parent): row.parent
            for row in annotations
            if row.kind == "phrase" and isinstance(row.parent, Annotation) and row.parent.kind == "text"
        }
        long = {
            key: [
                (replace(text, text=(text.text or "")[start:end]), start, end)
                for start, end in spans_that_fit(text.text or "", self._fits)
            ]
            for key, text in texts.items()
            if not self._fits(text.text or "")
        }
        self.counts["split"] += len(long)
        if not long:
            return annotations
        moved: dict[int, Annotation] = {}
        rows = []
        for row in annotations:
            if row.kind == "phrase" and row.mask is None and row.span is not None and id(row.parent) in long:
                part = _part(row.span, long[id(row.parent)])
                if part is None:
                    continue  # it reaches over the end of a part
                text, start = part
                other = replace(row, parent=text, span=(row.span[0] - start, row.span[1] - start))
                moved[id(row)] = other
                rows.append(other)
            else:
                rows.append(row)
        # Masks belong to phrases that now are others.
        return [
            replace(row, parent=moved[id(row.parent)]) if id(row.parent) in moved else row for row in rows
        ]


def _part(
    span: tuple[int, int], parts: Sequence[tuple[Annotation, int, int]]
) -> tuple[Annotation, int] | None:
    return next(((text, start) for text, start, end in parts if start <= span[0] and span[1] <= end), None)
