"""Crops and pictures with what is said of them, and which text belongs to which: UniCL's label space.

There are two spaces, never mixed, so that little is called false that is true:

- Crops of things, and what is said of them: the description ("large striped red star"), shorter ones
  ("star", "a red star"), phrases of captions. The label of a text is the set of its words without
  articles and numbers, plurals as singulars; it belongs to every crop of whose thing all of those words
  were said. Repeated texts are positives of one another, and "star" is one of a red star's.
- Whole pictures and their captions: a caption belongs to the pictures with that very caption. Another
  picture's may be true by chance; it names two or three things, so that is rare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from data_engine.scenes.english import NUMBERS, article, plural
from data_engine.scenes.world import World
from specialists.scorer import crop_box
from specialists.scorer_scenes import Picture, Thing

SIDE = 64
"""Pixels that a crop or picture is squashed to, on both sides."""

_MINIMUM_SIDE = 16  # the scorer's own default
_JITTER = 0.08
"""How far the edges of a crop's second copy move, as a share of its sides: detectors are not exact."""

_PHRASES = 0.2
"""Share of crops whose text is a caption's phrase; of the others half have their full description."""

_WITH_ARTICLE = 0.3
_BRIEF = 0.7
"""Share of whole pictures with their brief caption; the others have the detailed one."""

PICTURES = 4
"""For so many crops of a batch there is one whole picture in it."""

_UNSEEN_WORDS = frozenset(("a", "an", "the", *NUMBERS))
"""Words of a phrase that its crop does not show: how many there are stands in the picture around it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops, then whole pictures: `pixels` (n + k, 3, SIDE, SIDE) float32 from 0 to 1.

    `positives` (n, m) says which of the distinct `texts` belong to which crop, and
    `picture_positives` (k, l) which of the distinct `captions` belong to which picture.
    """

    pixels: Any
    texts: Sequence[str]
    positives: Any
    captions: Sequence[str]
    picture_positives: Any


class Pairs:
    """Endless batches of crops and pictures with what is said of them, one epoch of crops after the other."""

    def __init__(
        self, pictures: Iterable[Picture], world: World, batch: int, rng: np.random.Generator
    ) -> None:
        self.batch = batch
        self.rng = rng
        self.singular = {plural(name): name for name in world.class_names}
        self.things: list[Thing] = []
        self.captions: list[tuple[str, ...]] = []
        crops, whole = [], []
        for picture in pictures:  # whose pixels need not all be in memory
            self.things += picture.things
            self.captions.append(picture.captions)
            crops.append(_crops(picture, rng))
            whole.append(squashed(picture.pixels, None))
        self.crops = np.concatenate(crops)
        """(n, 2, SIDE, SIDE, 3) uint8: of each thing the crop of its box, and one of a box near it."""
        self.whole = np.stack(whole)
        words = [frozenset().union(*map(self.label, _said(thing))) for thing in self.things]
        self.columns = {word: at for at, word in enumerate(sorted(frozenset().union(*words)))}
        self.said = np.stack([self._row(of) for of in words])
        """(n, words) bool: which words were said of each thing."""

    def texts(self) -> Iterator[str]:
        """All captions, and all that is said of things."""
        for captions in self.captions:
            yield from captions
        for thing in self.things:
            yield from _said(thing)

    def label(self, text: str) -> frozenset[str]:
        """The words of a text that must have been said of a thing for the text to belong to its crop."""
        words = (self.singular.get(word, word) for word in text.lower().split())
        return frozenset(word for word in words if word not in _UNSEEN_WORDS)

    def _row(self, words: frozenset[str]) -> np.ndarray:
        row = np.zeros(len(self.columns), dtype=bool)
        row[[self.columns[word] for word in words]] = True
        return row

    def positives(self, things: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """(things, texts) bool: whether all of a text's words were said of a thing, given by its index."""
        needed = np.stack([self._row(self.label(text)) for text in texts]).astype(np.float32)
        common = self.said[things].astype(np.float32) @ needed.T
        found: np.ndarray = common == needed.sum(axis=1)
        return found

    def __iter__(self) -> Iterator[Batch]:
        size = min(self.batch, len(self.things))
        while True:
            order = self.rng.permutation(len(self.things))
            for first in range(0, len(order) - size + 1, size):
                yield self._batch(order[first : first + size])

    def _batch(self, chosen: np.ndarray) -> Batch:
        import torch

        rng = self.rng
        spoken = [_say(self.things[i], rng) for i in chosen]
        texts = list(dict.fromkeys(spoken))
        crops = torch.from_numpy(self.crops[chosen, rng.integers(2, size=len(chosen))]).permute(0, 3, 1, 2)
        # A phrase may tell the sides apart ("the dog on the left").
        sided = np.array([not {"left", "right"}.isdisjoint(text.split()) for text in spoken])
        mirrored = torch.from_numpy((rng.random(len(chosen)) < 0.5) & ~sided)
        crops = torch.where(mirrored[:, None, None, None], crops.flip(-1), crops)

        few = max(2, len(chosen) // PICTURES)
        shown = rng.choice(len(self.captions), size=min(few, len(self.captions)), replace=False)
        told = [self.captions[i][0 if rng.random() < _BRIEF else 1] for i in shown]
        captions = list(dict.fromkeys(told))
        whole = torch.from_numpy(self.whole[shown]).permute(0, 3, 1, 2)

        pixels = torch.cat([crops, whole]).float() / 255
        # Light and its tint vary between scenes' colours and what a camera or encoder makes of them.
        gain = rng.uniform(0.85, 1.15, (len(pixels), 1, 1, 1)) * rng.uniform(
            0.96, 1.04, (len(pixels), 3, 1, 1)
        )
        pixels = (pixels * torch.from_numpy(gain.astype(np.float32))).clamp_(0, 1)
        return Batch(
            pixels=pixels.contiguous(memory_format=torch.channels_last),
            texts=texts,
            positives=torch.from_numpy(self.positives(chosen, texts)),
            captions=captions,
            picture_positives=torch.from_numpy(np.array(told)[:, None] == np.array(captions)),
        )


def _said(thing: Thing) -> tuple[str, ...]:
    """All that the truth says of a thing."""
    return (thing.description, thing.category, *thing.phrases)


def _say(thing: Thing, rng: np.random.Generator) -> str:
    """Something true of a thing: its description, a shorter one, its class, or a phrase that names it."""
    draw = rng.random()
    if thing.phrases and draw < _PHRASES:
        return thing.phrases[int(rng.integers(len(thing.phrases)))].lower()
    modifiers = thing.description.removesuffix(thing.category).split()
    keep = _PHRASES + (1 - _PHRASES) * np.array([0.5, 0.7])
    if draw >= keep[0]:
        share = 0 if draw < keep[1] else 0.5
        modifiers = [word for word in modifiers if rng.random() < share]
    words = " ".join([*modifiers, thing.category])
    return f"{article(words)} {words}" if rng.random() < _WITH_ARTICLE else words


def _crops(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """(things, 2, SIDE, SIDE, 3): the crops of the boxes, and of boxes near them."""
    size = (picture.pixels.shape[1], picture.pixels.shape[0])
    made = []
    for thing in picture.things:
        x0, y0, x1, y1 = thing.box
        sides = np.array([x1 - x0, y1 - y0] * 2)
        near = np.array(thing.box) + rng.uniform(-_JITTER, _JITTER, 4) * sides
        places = [crop_box(box, size, 0.0, _MINIMUM_SIDE) for box in (thing.box, near.tolist())]
        made.append([squashed(picture.pixels, place) for place in places])
    return np.array(made, dtype=np.uint8).reshape(-1, 2, SIDE, SIDE, 3)


def squashed(pixels: np.ndarray, place: tuple[int, int, int, int] | None) -> np.ndarray:
    """What the model's preprocessing makes of a crop, (SIDE, SIDE, 3) uint8."""
    image = PIL.Image.fromarray(pixels)
    cropped = image if place is None else image.crop(place)
    return np.asarray(cropped.resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC))
