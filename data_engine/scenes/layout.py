"""What stands where: things are placed one over the other, and each keeps most of itself in view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_engine.scenes.draw import Background, Stamp, random_background, stamp
from data_engine.scenes.signs import Line, random_sign
from data_engine.scenes.world import COLOURS, KINDS, SIGN, SIZES

MIN_VISIBLE = 0.6
"""Share of its own pixels that every thing keeps in view."""

MIN_CONTRAST = 105.0
"""Least distance in RGB between an object and every colour of the background."""

_TRIES = 30
_GAP = 3
_MOST_OF_PICTURE = 0.3


@dataclass(frozen=True, eq=False)
class Placed:
    """One thing at `x`, `y`. `size` is empty for a sign, `lines` and `ink` are empty for an object."""

    kind: str
    colour: str
    size: str
    stamp: Stamp
    x: int
    y: int
    lines: tuple[Line, ...] = ()
    ink: np.ndarray | None = None

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.stamp.height), slice(self.x, self.x + self.stamp.width)


@dataclass(frozen=True, eq=False)
class Layout:
    """`things` from the lowest to the topmost; `owner` (h, w) is each pixel's thing, -1 for none.

    `hides` holds pairs (upper, lower) where the upper one covers at least a twelfth of the lower.
    """

    background: Background
    things: tuple[Placed, ...]
    owner: np.ndarray
    hides: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Wish:
    kind: str
    colour: str
    size: str


def random_layout(rng: np.random.Generator, width: int, height: int) -> Layout:
    """One to six objects and, in about half of the layouts, one or two signs above them."""
    background = random_background(rng)
    signs = _signs(rng, width, height) if rng.random() < 0.5 else []
    objects = _objects(rng, width, height, _wishes(rng, background), signs)
    if not objects:  # a picture so small that its sign leaves no room
        signs = []
        objects = _objects(rng, width, height, _wishes(rng, background)[:1], signs)
    return _stacked(background, [*objects, *signs], width, height)


def _signs(rng: np.random.Generator, width: int, height: int) -> list[Placed]:
    placed: list[Placed] = []
    for _ in range(1 if rng.random() < 0.7 else 2):
        for _ in range(_TRIES):
            sign = random_sign(rng, min(width, height))
            x, y = _somewhere(rng, sign.stamp, width, height)
            one = Placed(SIGN, sign.colour, "", sign.stamp, x, y, sign.lines, sign.ink)
            fits = x >= 0 and y >= 0 and sign.stamp.alpha.size <= _MOST_OF_PICTURE * width * height
            if fits and not any(_near(one, other) for other in placed):
                placed.append(one)
                break
    return placed


def _wishes(rng: np.random.Generator, background: Background) -> list[_Wish]:
    """What is to be drawn; identical things and shared kinds or colours are common on purpose.

    Without them a phrase would need no attribute to be unambiguous.
    """
    ground = background.colours()
    colours = [
        name
        for name, rgb in COLOURS.items()
        if np.linalg.norm(ground - np.array(rgb, dtype=float), axis=1).min() >= MIN_CONTRAST
    ]

    def pick(names: list[str]) -> str:
        return names[int(rng.integers(len(names)))]

    def size() -> str:
        return str(rng.choice(list(SIZES), p=(0.35, 0.4, 0.25)))

    count = int(rng.integers(1, 7))
    wishes: list[_Wish] = []
    while len(wishes) < count:
        kind, colour = pick(list(KINDS)), pick(colours)
        if wishes and rng.random() < 0.25:
            kind = wishes[-1].kind
        elif wishes and rng.random() < 0.25:
            colour = wishes[-1].colour
        copies = int(rng.integers(2, 4)) if rng.random() < 0.15 else 1
        wishes += [_Wish(kind, colour, size())] * copies
    return wishes[:count]


def _objects(
    rng: np.random.Generator, width: int, height: int, wishes: list[_Wish], signs: list[Placed]
) -> list[Placed]:
    """The wishes that found a place, below the signs. A quarter of them may overlap what is there."""
    floor = _Floor(width, height, signs)
    for wish in wishes:
        low, high = SIZES[wish.size]
        drawn = stamp(
            wish.kind,
            _jittered(rng, wish.colour),
            float(rng.uniform(low, high)) * min(width, height),
            float(rng.uniform(-12, 12)),
        )
        free = floor.overlaps_fairly if rng.random() < 0.25 else floor.is_empty
        for _ in range(_TRIES):
            x, y = _somewhere(rng, drawn, width, height)
            one = Placed(wish.kind, wish.colour, wish.size, drawn, x, y)
            if x >= 0 and y >= 0 and free(one):
                floor.put(one)
                break
    return floor.placed


class _Floor:
    """What is taken so far: by objects (`owner`, as in a layout) and by the signs above them."""

    def __init__(self, width: int, height: int, signs: list[Placed]) -> None:
        self.owner = np.full((height, width), -1, dtype=np.int16)
        self.covered = np.zeros((height, width), dtype=bool)
        for sign in signs:
            self.covered[sign.window] |= sign.stamp.solid
        self.placed: list[Placed] = []

    def put(self, one: Placed) -> None:
        self.owner[one.window][self._seen(one)] = len(self.placed)
        self.placed.append(one)

    def is_empty(self, one: Placed) -> bool:
        """Whether nothing stands within a few pixels of the thing's box."""
        x, y = max(0, one.x - _GAP), max(0, one.y - _GAP)
        near = np.s_[y : one.y + one.stamp.height + _GAP, x : one.x + one.stamp.width + _GAP]
        return not self.covered[near].any() and bool((self.owner[near] < 0).all())

    def overlaps_fairly(self, one: Placed) -> bool:
        """Whether the thing and those that it covers stay visible, and differ in colour."""
        seen = self._seen(one)
        if seen.sum() < MIN_VISIBLE * one.stamp.solid.sum():
            return False
        below, taken = np.unique(self.owner[one.window][seen], return_counts=True)
        for index, pixels in zip(below.tolist(), taken.tolist(), strict=True):
            if index < 0:
                continue
            other = self.placed[index]
            left = (self.owner == index).sum() - pixels
            if other.colour == one.colour or left < MIN_VISIBLE * other.stamp.solid.sum():
                return False
        return True

    def _seen(self, one: Placed) -> np.ndarray:
        seen: np.ndarray = one.stamp.solid & ~self.covered[one.window]
        return seen


def _somewhere(rng: np.random.Generator, drawn: Stamp, width: int, height: int) -> tuple[int, int]:
    """A random place wholly inside the picture; (-1, -1) where the stamp is too large for it."""
    room_x, room_y = width - drawn.width, height - drawn.height
    if room_x < 0 or room_y < 0:
        return -1, -1
    return int(rng.integers(room_x + 1)), int(rng.integers(room_y + 1))


def _jittered(rng: np.random.Generator, colour: str) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in np.clip(np.array(COLOURS[colour]) + rng.integers(-10, 11, 3), 0, 255))
    return r, g, b


def _near(a: Placed, b: Placed) -> bool:
    apart_x = max(a.x, b.x) - min(a.x + a.stamp.width, b.x + b.stamp.width)
    apart_y = max(a.y, b.y) - min(a.y + a.stamp.height, b.y + b.stamp.height)
    return apart_x < _GAP and apart_y < _GAP


def _stacked(background: Background, things: list[Placed], width: int, height: int) -> Layout:
    owner = np.full((height, width), -1, dtype=np.int16)
    hides: list[tuple[int, int]] = []
    for upper, thing in enumerate(things):
        solid = thing.stamp.solid
        below, taken = np.unique(owner[thing.window][solid], return_counts=True)
        for lower, pixels in zip(below.tolist(), taken.tolist(), strict=True):
            if lower >= 0 and pixels * 12 >= things[lower].stamp.solid.sum():
                hides.append((upper, lower))
        owner[thing.window][solid] = upper
    return Layout(background, tuple(things), owner, tuple(hides))
