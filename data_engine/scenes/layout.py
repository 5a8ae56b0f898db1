"""What stands where: parts are placed one after the other, and each thing keeps most of itself in view.

A part is one thing, a row of alike ones, or an actor with what it acts on. It finds a place as a whole or
not at all, so what is said of it stays true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_engine.scenes.actions import POSES, line_stamp
from data_engine.scenes.backgrounds import Background, random_background
from data_engine.scenes.draw import Stamp, stamp
from data_engine.scenes.signs import Line, labelled, random_sign
from data_engine.scenes.world import PLAIN, SIZES, Action, World

MIN_VISIBLE = 0.6
"""Share of its own pixels that every thing keeps in view."""

MIN_CONTRAST = 105.0
"""Least distance in RGB between an object and every colour of the background."""

_TRIES = 24
_GAP = 3
_MOST_OF_PICTURE = 0.3
_ACTION, _ROW, _TRUNCATED, _OVERLAPPING, _STICKER = 0.24, 0.2, 0.1, 0.25, 0.6
_TEXTURE, _MATERIAL = 0.28, 0.22


@dataclass(frozen=True, eq=False)
class Placed:
    """One thing at `x`, `y`. `size` is empty for a sign; `lines` and `ink` are for what bears text.

    `surface` is a texture, a material or `PLAIN`. `whole` counts the pixels of the mask before other
    things or the picture's edge took some, `cut` names the edges that did; `facing` is an actor's side.
    """

    kind: str
    colour: str
    size: str
    surface: str
    stamp: Stamp
    x: int
    y: int
    whole: int
    lines: tuple[Line, ...] = ()
    ink: np.ndarray | None = None
    facing: str = ""
    cut: tuple[str, ...] = ()

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.y, self.y + self.stamp.height), slice(self.x, self.x + self.stamp.width)


@dataclass(frozen=True)
class Acted:
    """`actor` and `object` are indices into the layout's things."""

    actor: int
    action: Action
    object: int


@dataclass(frozen=True, eq=False)
class Layout:
    """`things` from the lowest to the topmost; `owner` (h, w) is each pixel's thing, -1 for none.

    `hides` holds pairs (upper, lower) where the upper one covers at least a twelfth of the lower; `rows`
    are the things of each row; `extras` are lines, below all things, that belong to none.
    """

    background: Background
    things: tuple[Placed, ...]
    owner: np.ndarray
    hides: tuple[tuple[int, int], ...]
    acts: tuple[Acted, ...]
    rows: tuple[tuple[int, ...], ...]
    extras: tuple[tuple[Stamp, int, int], ...]


@dataclass(frozen=True)
class _Wish:
    kind: str
    colour: str
    size: str
    surface: str


@dataclass(frozen=True, eq=False)
class _Part:
    """Things whose places are relative to one another until the part has found its own."""

    things: tuple[Placed, ...]
    extras: tuple[tuple[Stamp, int, int], ...] = ()
    action: Action | None = None
    row: bool = False


def random_layout(world: World, rng: np.random.Generator, width: int, height: int) -> Layout:
    """One to eight objects and, in about half of the layouts, one or two signs above them."""
    background = random_background(world, rng)
    signs = _signs(world, rng, width, height) if rng.random() < 0.56 else []
    composer = _Composer(world, background, rng, width, height)
    floor = _Floor(width, height, signs)
    composer.fill(floor)
    if not floor.placed:  # a picture so small that its sign leaves no room
        signs = []
        floor = _Floor(width, height, signs)
        floor.settle(composer.single(composer.wish()), rng)
    return _stacked(background, floor, signs, width, height)


def _signs(world: World, rng: np.random.Generator, width: int, height: int) -> list[Placed]:
    placed: list[Placed] = []
    for _ in range(1 if rng.random() < 0.7 else 2):
        sign = random_sign(world, rng, min(width, height))
        room_x, room_y = width - sign.stamp.width, height - sign.stamp.height
        if min(room_x, room_y) < 0 or sign.stamp.alpha.size > _MOST_OF_PICTURE * width * height:
            continue
        whole = int(sign.stamp.solid.sum())
        one = Placed(world.sign, sign.colour, "", PLAIN, sign.stamp, 0, 0, whole, sign.lines, sign.ink)
        for x, y in rng.integers((0, 0), (room_x + 1, room_y + 1), (_TRIES, 2)).tolist():
            one = replace(one, x=x, y=y)
            if not any(_near(one, other) for other in placed):
                placed.append(one)
                break
    return placed


class _Composer:
    """Draws parts; identical things and shared kinds or colours are common on purpose.

    Without them a phrase would need no attribute to be unambiguous.
    """

    def __init__(
        self, world: World, background: Background, rng: np.random.Generator, width: int, height: int
    ) -> None:
        self.world = world
        self.rng = rng
        self.side = min(width, height)
        ground = background.colours(world)
        self.colours = [
            name
            for name, rgb in world.colours.items()
            if np.linalg.norm(ground - np.array(rgb, dtype=float), axis=1).min() >= MIN_CONTRAST
        ]
        self.last: _Wish | None = None

    def fill(self, floor: _Floor) -> None:
        rng = self.rng
        if rng.random() < _ACTION:
            floor.settle(self.act(), rng)
        if rng.random() < _ROW:
            floor.settle(self.row(self.wish()), rng)
        for _ in range(int(rng.integers(0 if floor.placed else 1, 6 - min(4, len(floor.placed))))):
            one = self.single(self.wish())
            draw = rng.random()
            if draw < _TRUNCATED:
                floor.settle_across_edge(one, rng)
            else:
                floor.settle(one, rng, overlapping=draw < _TRUNCATED + _OVERLAPPING)
            if rng.random() < 0.12:  # a second one that the same words fit, elsewhere
                floor.settle(self.single(self.last or self.wish()), rng)

    def wish(self, kinds: Sequence[str] = ()) -> _Wish:
        kind, colour = self._pick(kinds or self.world.kinds), self._pick(self.colours)
        size = str(self.rng.choice(list(SIZES), p=(0.35, 0.4, 0.25)))
        if self.last is not None:
            draw = self.rng.random()
            if draw < 0.25 and not kinds:
                kind = self.last.kind
            elif draw < 0.5:
                colour = self.last.colour
        self.last = _Wish(kind, colour, size, self._surface(size))
        return self.last

    def single(self, wish: _Wish) -> _Part:
        facing = self._facing(wish.kind)
        one = self._placed(wish, self._extent(wish.size), float(self.rng.uniform(-12, 12)), facing)
        if wish.size == "large" and wish.kind in self.world.labelled and self.rng.random() < _STICKER:
            sticker = labelled(one.stamp, wish.colour, self.world, self.rng, self.side)
            if sticker is not None:
                drawn, line, ink = sticker
                one = replace(one, stamp=drawn, lines=(line,), ink=ink)
        return _Part((one,))

    def row(self, wish: _Wish) -> _Part:
        """Two to four alike, side by side or one above the other."""
        size = "small" if wish.size == "large" else wish.size
        wish = replace(wish, size=size, surface=PLAIN if size == "small" else wish.surface)
        self.last = wish
        count = int(self.rng.integers(2, 5 if size == "small" else 4))
        extent, degrees, facing = self._extent(size), float(self.rng.uniform(-8, 8)), self._facing(wish.kind)
        things = [self._placed(wish, extent, degrees, facing) for _ in range(count)]
        across = self.rng.random() < 0.7
        step = extent * float(self.rng.uniform(1.12, 1.4))
        sway = self.rng.uniform(-0.08, 0.08, count) * extent
        return _Part(
            tuple(
                replace(
                    one, x=round(i * step if across else sway[i]), y=round(sway[i] if across else i * step)
                )
                for i, one in enumerate(things)
            ),
            row=True,
        )

    def act(self) -> _Part:
        """An actor that does something to another thing, neither of them small or large."""
        rng, world = self.rng, self.world
        action = world.actions[int(rng.integers(len(world.actions)))]
        pose = POSES[action.pose]
        actor_wish = self.wish(world.actors)
        actor_wish = replace(actor_wish, size="medium")
        others = [kind for kind in world.kinds if kind not in world.actors]
        size = "medium" if action.pose == "push" and rng.random() < 0.5 else "small"
        wish = replace(
            self.wish(others), size=size, surface=PLAIN if size == "small" else self._surface(size)
        )
        if wish.colour == actor_wish.colour:  # where they touch, their edge must be seen
            wish = replace(wish, colour=self._pick([c for c in self.colours if c != actor_wish.colour]))
        actor = self._placed(actor_wish, self._extent("medium"), pose.tilt, "right")
        thing = self._placed(wish, self._extent(size), float(rng.uniform(-5, 5)), self._facing(wish.kind))
        staged = pose.stage(actor.stamp, thing.stamp, rng)
        thing = replace(thing, x=staged.x, y=staged.y)
        ink = (70, 60, 52) if self._light_ground() else (206, 200, 190)
        extras = tuple(line_stamp(path, ink, max(1.0, self.side / 200)) for path in staged.lines)
        things: tuple[Placed, ...] = (actor, thing)
        if rng.random() < 0.5:
            things, extras = _mirrored(things, extras)
        return _Part(things, extras, action)

    def _light_ground(self) -> bool:
        return "black" in self.colours or "navy" in self.colours

    def _placed(self, wish: _Wish, extent: float, degrees: float, facing: str) -> Placed:
        jitter = self.rng.integers(-10, 11, 3)
        rgb = tuple(int(v) for v in np.clip(np.array(self.world.colours[wish.colour]) + jitter, 0, 255))
        drawn = stamp(wish.kind, rgb, wish.surface, extent, degrees, facing == "left", self.rng)  # type: ignore[arg-type]
        whole = int(drawn.solid.sum())
        return Placed(wish.kind, wish.colour, wish.size, wish.surface, drawn, 0, 0, whole, facing=facing)

    def _extent(self, size: str) -> float:
        return float(self.rng.uniform(*SIZES[size])) * self.side

    def _facing(self, kind: str) -> str:
        if kind not in self.world.actors:
            return ""
        return "left" if self.rng.random() < 0.5 else "right"

    def _surface(self, size: str) -> str:
        """What is small is plain: on so few pixels nothing else could be seen."""
        draw = self.rng.random()
        if size == "small" or draw >= _TEXTURE + _MATERIAL:
            return PLAIN
        return self._pick(self.world.textures if draw < _TEXTURE else self.world.materials)

    def _pick(self, names: Sequence[str]) -> str:
        return names[int(self.rng.integers(len(names)))]


def _mirrored(
    things: tuple[Placed, ...], extras: tuple[tuple[Stamp, int, int], ...]
) -> tuple[tuple[Placed, ...], tuple[tuple[Stamp, int, int], ...]]:
    """The same seen in a mirror."""
    other = {"left": "right", "right": "left", "": ""}
    flipped = tuple(
        replace(one, stamp=_flipped(one.stamp), x=-one.x - one.stamp.width, facing=other[one.facing])
        for one in things
    )
    return flipped, tuple((_flipped(drawn), -x - drawn.width, y) for drawn, x, y in extras)


def _flipped(drawn: Stamp) -> Stamp:
    return replace(drawn, alpha=drawn.alpha[:, ::-1], rgb=drawn.rgb[:, ::-1])


class _Floor:
    """What is taken so far: by objects (`owner`, as in a layout) and by the signs above them."""

    def __init__(self, width: int, height: int, signs: list[Placed]) -> None:
        self.width, self.height = width, height
        self.owner = np.full((height, width), -1, dtype=np.int16)
        self.covered = np.zeros((height, width), dtype=bool)
        for sign in signs:
            self.covered[sign.window] |= sign.stamp.solid
        self.placed: list[Placed] = []
        self.acts: list[Acted] = []
        self.rows: list[tuple[int, ...]] = []
        self.extras: list[tuple[Stamp, int, int]] = []

    def settle(self, part: _Part, rng: np.random.Generator, overlapping: bool = False) -> None:
        """Put a part at a random place where it fits, if a few tries find one."""
        low_x, low_y = min(one.x for one in part.things), min(one.y for one in part.things)
        room_x = self.width - max(one.x + one.stamp.width for one in part.things) + low_x
        room_y = self.height - max(one.y + one.stamp.height for one in part.things) + low_y
        if room_x < 0 or room_y < 0:
            return
        places = rng.integers((0, 0), (room_x + 1, room_y + 1), (_TRIES, 2)) - (low_x, low_y)
        for dx, dy in places.tolist():
            moved = [replace(one, x=one.x + dx, y=one.y + dy) for one in part.things]
            if self._overlaps_fairly(moved[0]) if overlapping else all(map(self._is_empty, moved)):
                first = len(self.placed)
                for one in moved:
                    self._put(one)
                if part.action is not None:
                    self.acts.append(Acted(first, part.action, first + 1))
                if part.row:
                    self.rows.append(tuple(range(first, len(self.placed))))
                self.extras += [e for e in (self._cropped(s, x + dx, y + dy) for s, x, y in part.extras) if e]
                return

    def settle_across_edge(self, part: _Part, rng: np.random.Generator) -> None:
        """Put a thing so that one edge of the picture cuts some of it off."""
        one = part.things[0]
        w, h = one.stamp.width, one.stamp.height
        if one.lines or w >= self.width or h >= self.height:
            return
        for _ in range(_TRIES):
            edge = ("left", "right", "top", "bottom")[int(rng.integers(4))]
            lost = float(rng.uniform(0.12, 0.35))
            x, y = int(rng.integers(self.width - w + 1)), int(rng.integers(self.height - h + 1))
            x = {"left": -round(lost * w), "right": self.width - w + round(lost * w)}.get(edge, x)
            y = {"top": -round(lost * h), "bottom": self.height - h + round(lost * h)}.get(edge, y)
            kept = self._cropped(one.stamp, x, y)
            if kept is None or kept[0].solid.sum() < (MIN_VISIBLE + 0.05) * one.whole:
                continue
            moved = replace(one, stamp=kept[0], x=kept[1], y=kept[2], cut=(edge,))
            if self._is_empty(moved):
                self._put(moved)
                return

    def _cropped(self, drawn: Stamp, x: int, y: int) -> tuple[Stamp, int, int] | None:
        """A stamp at x, y without what lies beyond the picture; None if nothing is left."""
        x0, y0 = max(0, -x), max(0, -y)
        x1, y1 = min(drawn.width, self.width - x), min(drawn.height, self.height - y)
        if x0 >= x1 or y0 >= y1:
            return None
        return drawn.part(x0, y0, x1, y1), x + x0, y + y0

    def _put(self, one: Placed) -> None:
        self.owner[one.window][self._seen(one)] = len(self.placed)
        self.placed.append(one)

    def _is_empty(self, one: Placed) -> bool:
        """Whether nothing stands within a few pixels of the thing's box."""
        x, y = max(0, one.x - _GAP), max(0, one.y - _GAP)
        near = np.s_[y : one.y + one.stamp.height + _GAP, x : one.x + one.stamp.width + _GAP]
        return not self.covered[near].any() and bool((self.owner[near] < 0).all())

    def _overlaps_fairly(self, one: Placed) -> bool:
        """Whether the thing and those that it covers stay visible, and differ in colour."""
        seen = self._seen(one)
        if seen.sum() < MIN_VISIBLE * one.whole or (one.ink is not None and seen.sum() < one.whole):
            return False
        below, taken = np.unique(self.owner[one.window][seen], return_counts=True)
        for index, pixels in zip(below.tolist(), taken.tolist(), strict=True):
            if index < 0:
                continue
            other = self.placed[index]
            left = (self.owner == index).sum() - pixels
            if other.colour == one.colour or other.lines or left < MIN_VISIBLE * other.whole:
                return False
            if any(index in (act.actor, act.object) for act in self.acts):
                return False
        return True

    def _seen(self, one: Placed) -> np.ndarray:
        seen: np.ndarray = one.stamp.solid & ~self.covered[one.window]
        return seen


def _near(a: Placed, b: Placed) -> bool:
    apart_x = max(a.x, b.x) - min(a.x + a.stamp.width, b.x + b.stamp.width)
    apart_y = max(a.y, b.y) - min(a.y + a.stamp.height, b.y + b.stamp.height)
    return apart_x < _GAP and apart_y < _GAP


def _stacked(background: Background, floor: _Floor, signs: list[Placed], width: int, height: int) -> Layout:
    things = [*floor.placed, *signs]
    owner = np.full((height, width), -1, dtype=np.int16)
    hides: list[tuple[int, int]] = []
    for upper, thing in enumerate(things):
        solid = thing.stamp.solid
        below, taken = np.unique(owner[thing.window][solid], return_counts=True)
        for lower, pixels in zip(below.tolist(), taken.tolist(), strict=True):
            if lower >= 0 and pixels * 12 >= things[lower].whole:
                hides.append((upper, lower))
        owner[thing.window][solid] = upper
    return Layout(
        background,
        tuple(things),
        owner,
        tuple(hides),
        tuple(floor.acts),
        tuple(floor.rows),
        tuple(floor.extras),
    )
