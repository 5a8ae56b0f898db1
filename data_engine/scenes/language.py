"""Captions of a scene in three granularities, with the exact span of every phrase that names objects.

A caption is built from plain strings and mentions (a noun phrase with the objects it stands for), so
spans are counted while the text is put together and never searched for afterwards. A phrase always
stands for *all* objects that its words fit: "a red star" is not said of one of two red stars.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_engine.scenes.draw import Background
from data_engine.scenes.world import NUMBERS, article, plural

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Described:
    """What captions know of one thing. `box` is in pixels, `area` counts visible pixels."""

    kind: str
    colour: str
    size: str
    box: Box
    area: int
    lines: tuple[str, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Phrase:
    """`span` (start, end) in the caption's characters; `things` are indices into the scene's things."""

    span: tuple[int, int]
    things: tuple[int, ...]


@dataclass(frozen=True)
class Caption:
    granularity: str
    text: str
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class _Mention:
    text: str
    things: tuple[int, ...]


_Piece = str | _Mention
_Sentence = list[_Piece]


@dataclass(frozen=True)
class _Group:
    """Things that one phrase names together: the same words fit them all, and nothing else."""

    things: tuple[int, ...]
    noun: str
    short: str  # the fewest words that still fit nothing else

    @property
    def many(self) -> bool:
        return len(self.things) > 1

    @property
    def be(self) -> str:
        return "are" if self.many else "is"

    def some(self) -> _Mention:
        """For example "a small red star" or "two small red stars"."""
        if self.many:
            return _Mention(f"{NUMBERS[len(self.things)]} {plural(self.noun)}", self.things)
        return _Mention(f"{article(self.noun)} {self.noun}", self.things)

    def the(self) -> _Mention:
        """For example "the star" or "the red stars"."""
        return _Mention(f"the {plural(self.short) if self.many else self.short}", self.things)


def captions(
    things: Sequence[Described],
    hides: Sequence[tuple[int, int]],
    background: Background,
    width: int,
    height: int,
    rng: np.random.Generator,
) -> list[Caption]:
    """A brief, a detailed and a more detailed caption, in that order. `things` is not empty."""
    teller = _Teller(things, hides, background, width, height, rng)
    return [
        _put_together("brief", teller.brief()),
        _put_together("detailed", teller.detailed()),
        _put_together("more_detailed", teller.more_detailed()),
    ]


def _put_together(granularity: str, sentences: Sequence[_Sentence]) -> Caption:
    """Join pieces into text: each sentence gets its capital and full stop, each mention its span."""
    text = ""
    phrases: list[Phrase] = []
    for sentence in sentences:
        text += " " if text else ""
        opening = True
        for piece in sentence:
            said = piece.text if isinstance(piece, _Mention) else piece
            if opening:
                said = said[0].upper() + said[1:]
                opening = False
            if isinstance(piece, _Mention):
                phrases.append(Phrase((len(text), len(text) + len(said)), piece.things))
            text += said
        text += "."
    return Caption(granularity, text, tuple(phrases))


def _listed(items: Sequence[_Sentence]) -> _Sentence:
    """A, B and C."""
    pieces: _Sentence = []
    for i, item in enumerate(items):
        if i:
            pieces.append(" and " if i == len(items) - 1 else ", ")
        pieces += item
    return pieces


_CELLS = {
    (0, 0): "in the top left corner", (1, 0): "at the top", (2, 0): "in the top right corner",
    (0, 1): "on the left", (1, 1): "in the center", (2, 1): "on the right",
    (0, 2): "in the bottom left corner", (1, 2): "at the bottom", (2, 2): "in the bottom right corner",
}  # fmt: skip
_COLUMNS = ("on the left side", "in the middle column", "on the right side")
_ROWS = ("along the top", "across the middle", "along the bottom")


class _Teller:
    def __init__(
        self,
        things: Sequence[Described],
        hides: Sequence[tuple[int, int]],
        background: Background,
        width: int,
        height: int,
        rng: np.random.Generator,
    ) -> None:
        self.things = things
        self.hides = hides
        self.background = background
        self.width, self.height = width, height
        self.rng = rng

    # What is said

    def brief(self) -> list[_Sentence]:
        """One sentence about the one to three most salient groups."""
        groups = self._groups(lambda thing: (thing.kind, thing.colour))[:3]
        first, rest = groups[0], groups[1:]
        draw = self.rng.random()
        if len(groups) == 2 and draw < 0.5:
            relation = self._relation(first, groups[1])
            if relation:
                return [[*self._with_text(first), f" {relation} ", *self._with_text(groups[1])]]
        everything = _listed([self._with_text(group) for group in groups])
        if draw < 0.3:
            return [[*everything, f" on {self._ground()}"]]
        if draw < 0.55:
            return [[f"there {first.be} ", *everything]]
        if draw < 0.7 and rest:
            others = _listed([self._with_text(group) for group in rest])
            return [[first.some(), " with ", *others]]
        if draw < 0.85:
            return [["a picture of ", *everything]]
        return [everything]

    def detailed(self) -> list[_Sentence]:
        """All things with their attributes, and how some of them stand to one another."""
        groups = self._groups(_identity)
        draw = self.rng.random()
        if draw < 0.35 and len(groups) > 1:
            told = self._walk(groups)
        else:
            everything = _listed([[group.some()] for group in groups])
            if draw < 0.6:
                told = [["the picture shows ", *everything]]
            elif draw < 0.8:
                told = [[f"there {groups[0].be} ", *everything, f" on {self._ground()}"]]
            else:
                told = [["on ", self._ground(), f" {groups[0].be} ", *everything]]
            told += self._relations(groups, most=2)
        return told + self._signs(groups)

    def more_detailed(self) -> list[_Sentence]:
        """Background, every thing's place, relations, what hides what, and what the signs say."""
        groups = self._groups(_identity)
        opening: _Sentence = (
            [f"the background is {self._ground_adjective()}"]
            if self.rng.random() < 0.5
            else [f"this is a drawing on {self._ground()}"]
        )
        told = [opening]
        for group in groups:
            place = self._place(group)
            texts = self._read(group)
            if texts:
                told.append([group.some(), f" {place} {'read' if group.many else 'reads'} {texts}"])
                continue
            draw = self.rng.random()
            if draw < 0.4:
                told.append([f"{place}, there {group.be} ", group.some()])
            elif draw < 0.7:
                told.append([f"{place} {group.be} ", group.some()])
            else:
                told.append([group.some(), f" {group.be} {place}"])
        told += self._relations(groups, most=3)
        of = {index: group for group in groups for index in group.things}
        for upper, lower in self.hides:
            above, below = of[upper], of[lower]
            if not above.many and not below.many:
                told.append([above.the(), " partly hides ", below.the()])
        return told

    # How it is said

    def _groups(self, key: Callable[[Described], tuple[str, ...]]) -> list[_Group]:
        """Things with the same key, the most salient (largest in sum) first."""
        found: dict[tuple[str, ...], list[int]] = {}
        for index, thing in enumerate(self.things):
            found.setdefault(key(thing), []).append(index)
        ordered = sorted(found.values(), key=lambda indices: -sum(self.things[i].area for i in indices))
        return [
            _Group(tuple(indices), *self._nouns(self.things[indices[0]], tuple(indices)))
            for indices in ordered
        ]

    def _nouns(self, thing: Described, group: tuple[int, ...]) -> tuple[str, str]:
        """The full noun of a group and its shortest, both of which fit exactly the group."""
        wordings = [
            words
            for words in (
                (thing.kind,),
                (thing.colour, thing.kind),
                (thing.size, thing.kind),
                (thing.size, thing.colour, thing.kind),
            )
            if all(words) and self._fits(words) == group
        ]
        coloured = [words for words in wordings if thing.colour in words]
        # "medium" is only said where it tells two things apart.
        full = coloured[0] if thing.size == "medium" else coloured[-1]
        return " ".join(full), " ".join(wordings[0])

    def _fits(self, words: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(
            index
            for index, thing in enumerate(self.things)
            if all(word in (thing.size, thing.colour, thing.kind) for word in words)
        )

    def _ground(self) -> str:
        pattern, tones = self.background.pattern, self.background.tones
        if pattern == "gradient":
            return f"a background that fades from {tones[0]} to {tones[1]}"
        return f"a {pattern} {tones[0]} background"

    def _ground_adjective(self) -> str:
        pattern, tones = self.background.pattern, self.background.tones
        if pattern == "gradient":
            return f"a gradient between {tones[0]} and {tones[1]}"
        return f"{pattern} {tones[0]}"

    def _read(self, group: _Group) -> str:
        """The texts on a group's signs in quotes; empty for objects."""
        texts = [" ".join(self.things[i].lines) for i in group.things if self.things[i].lines]
        return " and ".join(f'"{text}"' for text in texts)

    def _with_text(self, group: _Group) -> _Sentence:
        texts = self._read(group)
        if not texts:
            return [group.some()]
        verb = "say" if group.many else "says"
        return [group.some(), f" that {verb} {texts}"]

    def _signs(self, groups: Sequence[_Group]) -> list[_Sentence]:
        return [
            [group.the(), f" {'read' if group.many else 'reads'} {self._read(group)}"]
            for group in groups
            if self._read(group)
        ]

    def _relation(self, a: _Group, b: _Group) -> str:
        """Where all of `a` stand as seen from all of `b`; empty where that is not clear."""
        ax, ay = np.array([self.things[i].centre for i in a.things]).T
        bx, by = np.array([self.things[i].centre for i in b.things]).T
        dx, dy = ax.mean() - bx.mean(), ay.mean() - by.mean()
        clear = 0.08 * min(self.width, self.height)
        if abs(dx) > 1.3 * abs(dy):
            if ax.max() < bx.min() - clear:
                return str(self.rng.choice(["to the left of", "left of"]))
            if ax.min() > bx.max() + clear:
                return str(self.rng.choice(["to the right of", "right of"]))
        elif abs(dy) > 1.3 * abs(dx):
            if ay.max() < by.min() - clear:
                return "above"
            if ay.min() > by.max() + clear:
                return "below"
        return ""

    def _relations(self, groups: Sequence[_Group], most: int) -> list[_Sentence]:
        """Sentences about pairs of neighbours in the order of salience."""
        told: list[_Sentence] = []
        for a, b in itertools.pairwise(groups):
            relation = self._relation(a, b)
            if relation and len(told) < most:
                told.append([a.the(), f" {a.be} {relation} ", b.the()])
        return told

    def _walk(self, groups: Sequence[_Group]) -> list[_Sentence]:
        """Each group is introduced by its relation to one that was already named."""
        first = groups[0]
        told: list[_Sentence] = [[f"there {first.be} ", first.some()]]
        known = [first]
        for group in groups[1:]:
            for anchor in reversed(known):
                relation = self._relation(group, anchor)
                if relation:
                    told.append([f"{relation} ", anchor.the(), f" {group.be} ", group.some()])
                    break
            else:
                told.append([f"there {group.be} also ", group.some()])
            known.append(group)
        return told

    def _place(self, group: _Group) -> str:
        cells = [self._cell(self.things[i].centre) for i in group.things]
        columns, rows = {c for c, _ in cells}, {r for _, r in cells}
        if len(columns) == 1 and len(rows) == 1:
            return _CELLS[cells[0]]
        if len(columns) == 1:
            return _COLUMNS[cells[0][0]]
        if len(rows) == 1:
            return _ROWS[cells[0][1]]
        return "in different places"

    def _cell(self, centre: tuple[float, float]) -> tuple[int, int]:
        """Column and row of nine equal cells."""
        x, y = centre
        return min(2, int(3 * x / self.width)), min(2, int(3 * y / self.height))


def _identity(thing: Described) -> tuple[str, ...]:
    return thing.kind, thing.colour, thing.size
