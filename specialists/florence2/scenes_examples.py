"""Training batches of drawn scenes, made in the background while the model learns from the last ones.

Each scene is drawn once and never again. A batch depends on the seed and its number alone, so a training
that goes on from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from data_engine.annotation import Annotation
from data_engine.scenes.scene import make_scene
from data_engine.scenes.world import find_world
from specialists.florence2.dense_targets import DenseTargets, dense_targets, joined
from specialists.florence2.sequences import drawn_examples
from specialists.florence2.training.batch import Batch
from specialists.florence2.training.prefetch import prefetched

TASK_WEIGHTS: dict[str, float] = {
    "CAPTION": 5.0,
    "DETAILED_CAPTION": 0.8,
    "MORE_DETAILED_CAPTION": 0.25,  # ten times as long as a brief one
    "OCR": 0.3,  # writing is hardly legible at the input's size
    "OCR_WITH_REGION": 0.3,
    "OD": 5.0,
    "DENSE_REGION_CAPTION": 1.5,
    "REGION_PROPOSAL": 0.3,
    "OPEN_VOCABULARY_DETECTION": 0.8,
    "CAPTION_TO_PHRASE_GROUNDING": 4.0,
    "REFERRING_EXPRESSION_SEGMENTATION": 0.8,
    "REGION_TO_SEGMENTATION": 0.3,
    "REGION_TO_CATEGORY": 0.8,
    "REGION_TO_DESCRIPTION": 1.2,
    "REGION_TO_OCR": 0.3,
}
"""How often a task is asked, relative to the others: most often what a data engine starts with."""

SIZES: tuple[tuple[tuple[int, int], float], ...] = (((320, 240), 0.6), ((240, 320), 0.2), ((256, 256), 0.2))
"""(width, height) of the scenes, and how often. The model sees all of them as squares."""

_AS_DRAWN = 0.25  # share of scenes without JPEG's traces
LONGEST = 192
"""Tokens of an answer, or of a prompt, at most; what is longer is not learnt from."""


@dataclass(frozen=True)
class Drawing:
    """What batches are made of: `side` and `grid` of the model, `words` of its dense head.

    `tokenizer` is the definition in JSON, with all added tokens.
    """

    seed: int
    world: str
    scenes: int
    tasks: int
    side: int
    grid: int
    words: tuple[str, ...]
    tokenizer: str


def batches(drawing: Drawing, start: int = 0, workers: int = 1, stride: int = 1) -> Iterator[Batch]:
    """Endless batches, every `stride`th from number `start` on.

    With `workers` 0 they are drawn here, else in processes.
    """
    return prefetched(_painter, drawing, itertools.count(start, stride), workers)


def _painter(drawing: Drawing) -> Callable[[int], Batch]:
    return _Painter(drawing).batch


def described_things(annotations: Sequence[Annotation]) -> list[tuple[str, Sequence[float]]]:
    """The fullest description of each thing, and its box: regions `brief`, which truth has one of per thing."""
    return [
        (row.text, row.box)
        for row in annotations
        if row.kind == "region" and row.granularity == "brief" and row.text and row.box is not None
    ]


class _Painter:
    def __init__(self, drawing: Drawing) -> None:
        from tokenizers import Tokenizer

        self.drawing = drawing
        self.world = find_world(drawing.world)
        self.tokenizer: Any = Tokenizer.from_str(drawing.tokenizer)
        self.index = {word: i for i, word in enumerate(drawing.words)}

    def batch(self, number: int) -> Batch:
        pixels, dense = [], []
        images: list[int] = []
        prompts: list[list[int]] = []
        answers: list[list[int]] = []
        count = self.drawing.scenes
        for i in range(count):
            index = number * count + i
            # A stream of its own, beside the scene's: which prompts are asked is no property of a scene.
            rng = np.random.default_rng([self.drawing.seed, index, 1])
            size = SIZES[int(rng.choice(len(SIZES), p=[share for _, share in SIZES]))][0]
            scene = make_scene(self.drawing.seed, index, size, self.world)
            seen = PIL.Image.fromarray(scene.pixels)
            if rng.random() >= _AS_DRAWN:
                seen = PIL.Image.open(io.BytesIO(scene.jpeg()))
            side = self.drawing.side
            seen = seen.resize((side, side), PIL.Image.Resampling.BICUBIC)
            pixels.append(np.asarray(seen).transpose(2, 0, 1))
            dense.append(self._dense(scene.annotations, size))
            for prompt, answer in self._examples(scene.annotations, size, rng):
                images.append(i)
                prompts.append(prompt)
                answers.append(answer)
        return Batch(
            np.stack(pixels),
            joined(dense),
            images,
            prompts,
            answers,
        )

    def _dense(self, annotations: Sequence[Annotation], size: tuple[int, int]) -> DenseTargets:
        shares = np.array([*size, *size], dtype=np.float64)
        things = [
            (
                [self.index[word] for word in text.split() if word in self.index],
                (np.array(box) / shares).tolist(),
            )
            for text, box in described_things(annotations)
        ]
        return dense_targets(things, self.drawing.grid, len(self.index))

    def _examples(
        self, annotations: Sequence[Annotation], size: tuple[int, int], rng: np.random.Generator
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Of so many tasks, drawn by weight, one example each; of a task's several, shorter ones more often."""
        wanted = self.drawing.tasks
        for example in drawn_examples(annotations, size, TASK_WEIGHTS, rng):
            # One by one: for a batch the library wakes threads, which where each core draws are in the way.
            prompt, answer = (self.tokenizer.encode(text).ids for text in (example.prompt, example.answer))
            if max(len(prompt), len(answer)) <= LONGEST:
                wanted -= 1
                yield prompt, answer
            if not wanted:
                return
