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

from data_engine.scenes.backgrounds import Background
from data_engine.scenes.english import NUMBERS, article, plural
from data_engine.scenes.layout import Acted
from data_engine.scenes.optics import Optics
from data_engine.scenes.relations import Box, relation
from data_engine.scenes.world import PLAIN, World


@dataclass(frozen=True)
class Described:
    """What captions know of one thing. `box` is in pixels, `area` counts visible pixels."""

    kind: str
    colour: str
    size: str
    surface: str
    box: Box
    area: int
    lines: tuple[str, ...] = ()
    facing: str = ""
    cut: tuple[str, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Told:
    """All that there is to tell of a scene."""

    world: World
    things: Sequence[Described]
    hides: Sequence[tuple[int, int]]
    acts: Sequence[Acted]
    rows: Sequence[tuple[int, ...]]
    background: Background
    optics: Optics
    width: int
    height: int


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


def noun(world: World, kind: str, colour: str = "", surface: str = "", size: str = "") -> str:
    """Words in English order: size, texture, colour, material, kind. An empty word is left out."""
    before = "" if surface in world.materials else surface
    after = surface if surface in world.materials else ""
    return " ".join(word for word in (size, before, colour, after, kind) if word)


def description(world: World, thing: Described) -> str:
    """Everything that can be said of what a thing is like: "small red star", "large blue wooden cup"."""
    return noun(world, thing.kind, thing.colour, "" if thing.surface == PLAIN else thing.surface, thing.size)


def captions(scene: Told, rng: np.random.Generator) -> list[Caption]:
    """A brief, a detailed and a more detailed caption, in that order. The scene has a thing at least."""
    teller = _Teller(scene, rng)
    return [
        _put_together("brief", teller.brief()),
        _put_together("detailed", teller.detailed()),
        _put_together("more_detailed", teller.more_detailed()),
    ]


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
    row: bool

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
_SCATTERED = "in different places"

_Slots = tuple[str, str, str]
"""A colour, a surface and a size; an empty word is not said."""


class _Teller:
    def __init__(self, scene: Told, rng: np.random.Generator) -> None:
        self.scene = scene
        self.things = scene.things
        self.rng = rng
        self._rows = {frozenset(row) for row in scene.rows}
        # For each word, the things that it is true of, as the bits of a number.
        self._true_of: dict[str, int] = {}
        for index, thing in enumerate(self.things):
            for word in (thing.kind, thing.colour, thing.surface, thing.size):
                self._true_of[word] = self._true_of.get(word, 0) | 1 << index

    # What is said

    def brief(self) -> list[_Sentence]:
        """One sentence about what happens, or about the one to three most salient groups."""
        groups = self._groups(lambda thing: (thing.kind, thing.colour, thing.surface))
        action = self._action(groups)
        if action and self.rng.random() < 0.8:
            ending = [f" on {self._ground()}"] if self.rng.random() < 0.2 else []
            return [[*action, *ending]]
        groups = groups[:3]
        first, rest = groups[0], groups[1:]
        draw = self.rng.random()
        if len(groups) == 2 and draw < 0.5:
            stands = self._relation(first, groups[1])
            if stands:
                # Else a sign would say its words to the left of something.
                verb = f" {first.be}" if self._read(first) else ""
                return [[*self._introduced(first), f"{verb} {stands} ", *self._introduced(groups[1])]]
        everything = _listed([self._introduced(group) for group in groups])
        if draw < 0.3:
            return [[*everything, f" on {self._ground()}"]]
        if draw < 0.55:
            return [[f"there {first.be} ", *everything]]
        if draw < 0.7 and rest and not self._read(first):  # what a sign is "with" would be painted on it
            others = _listed([self._introduced(group) for group in rest])
            return [[first.some(), " with ", *others]]
        if draw < 0.85:
            return [["a picture of ", *everything]]
        return [everything]

    def detailed(self) -> list[_Sentence]:
        """All things with their attributes, what happens, and how some of them stand to one another."""
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
                verb = "are" if len(groups) > 1 else groups[0].be
                told = [["on ", self._ground(), f" {verb} ", *everything]]
            told += self._relations(groups, most=2)
        return told + self._happenings(groups) + self._writing(groups)

    def more_detailed(self) -> list[_Sentence]:
        """Ground and light, every thing's place, what happens, relations, what hides what, what is written."""
        groups = self._groups(_identity)
        opening: _Sentence = (
            [f"the background is {self.scene.background.words()}"]
            if self.rng.random() < 0.5
            else [f"this is a drawing on {self._ground()}"]
        )
        told = [opening, *self._light()]
        for group in groups:
            told.append(self._placed(group))
        told += self._happenings(groups)
        told += self._relations(groups, most=3)
        told += self._facings(groups)
        of = {index: group for group in groups for index in group.things}
        for upper, lower in self.scene.hides:
            above, below = of[upper], of[lower]
            if not above.many and not below.many:
                told.append([above.the(), f" {self._pick(self.scene.world.hides)} ", below.the()])
        for group in groups:
            edges = self.things[group.things[0]].cut
            if edges and not group.many:
                told.append([f"the {edges[0]} edge cuts off part of ", group.the()])
        return told

    # How it is said

    def _groups(self, key: Callable[[Described], tuple[str, ...]]) -> list[_Group]:
        """Things with the same key, the most salient (largest in sum) first."""
        found: dict[tuple[str, ...], list[int]] = {}
        for index, thing in enumerate(self.things):
            found.setdefault(key(thing), []).append(index)
        ordered = sorted(found.values(), key=lambda indices: -sum(self.things[i].area for i in indices))
        return [
            _Group(
                tuple(indices),
                *self._nouns(self.things[indices[0]], sum(1 << i for i in indices)),
                frozenset(indices) in self._rows,
            )
            for indices in ordered
        ]

    def _nouns(self, thing: Described, group: int) -> tuple[str, str]:
        """The full noun of a group and its shortest, both of which fit exactly the group.

        "medium" and "plain" are only said where they tell two things apart.
        """
        colour, surface = thing.colour, thing.surface
        wordings = [
            slots
            for slots in itertools.product(("", colour), ("", surface), ("", thing.size))
            if self._fits(thing.kind, slots) == group
        ]
        silent = {PLAIN, "medium", ""}
        telling = [slots for slots in wordings if slots[0]]

        def rich(slots: _Slots) -> tuple[int, int]:
            needless = sum(word in (PLAIN, "medium") for word in slots)
            return -needless, sum(word not in silent for word in slots)

        full = max(telling, key=rich)
        short = min(wordings, key=lambda slots: sum(map(bool, slots)))
        words = [noun(self.scene.world, thing.kind, *slots) for slots in (full, short)]
        return words[0], words[1]

    def _fits(self, kind: str, slots: _Slots) -> int:
        true = self._true_of[kind]
        for word in slots:
            if word:
                true &= self._true_of[word]
        return true

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _ground(self) -> str:
        background = self.scene.background
        if background.pattern == "gradient":
            return f"a background that fades from {background.tones[0]} to {background.tones[1]}"
        return f"a {background.words()} background"

    def _light(self) -> list[_Sentence]:
        optics = self.scene.optics
        told: list[_Sentence] = []
        if optics.dim:
            told.append(["the scene is dimly lit"])
        if optics.lit_from:
            told.append([f"light comes from the {optics.lit_from}"])
        if optics.blurry:
            told.append(["the picture is blurry"])
        if self.scene.background.clutter:
            told.append(["small scraps lie around"])
        return told

    def _read(self, group: _Group) -> str:
        """The texts on a group's signs in quotes; empty for things without."""
        texts = [" ".join(self.things[i].lines) for i in group.things if self.things[i].lines]
        return " and ".join(f'"{text}"' for text in texts)

    def _introduced(self, group: _Group) -> _Sentence:
        texts = self._read(group)
        if texts and all(self.things[i].lines for i in group.things):
            return [group.some(), f" that {'say' if group.many else 'says'} {texts}"]
        if group.row:
            return [group.some(), " in a row"]
        return [group.some()]

    def _placed(self, group: _Group) -> _Sentence:
        """A sentence on where a group is, and what is written on it."""
        place = self._place(group)
        texts = self._read(group)
        if texts and all(self.things[i].lines for i in group.things):
            return [group.some(), f" {place} {'read' if group.many else 'reads'} {texts}"]
        if group.row:
            place = f"{place}, in a row"
        draw = self.rng.random()
        if draw < 0.4:
            return [f"there {group.be} ", group.some(), f" {place}"]
        if draw < 0.7 and not group.row and place != _SCATTERED:
            return [f"{place} {group.be} ", group.some()]
        return [group.some(), f" {group.be} {place}"]

    def _writing(self, groups: Sequence[_Group]) -> list[_Sentence]:
        return [
            [group.the(), f" {'read' if group.many else 'reads'} {self._read(group)}"]
            for group in groups
            if self._read(group) and all(self.things[i].lines for i in group.things)
        ]

    def _act(self, groups: Sequence[_Group]) -> tuple[_Group, Acted, _Group] | None:
        """The first action whose actor and object are each a group of their own."""
        of = {index: group for group in groups for index in group.things}
        for act in self.scene.acts:
            actor, thing = of[act.actor], of[act.object]
            if not actor.many and not thing.many:
                return actor, act, thing
        return None

    def _action(self, groups: Sequence[_Group]) -> _Sentence:
        """For example "a red dog pushes a blue ball"; empty where nothing happens."""
        found = self._act(groups)
        if found is None:
            return []
        actor, act, thing = found
        verb = act.action.verb if self.rng.random() < 0.6 else f"is {act.action.doing}"
        return [actor.some(), f" {verb} ", thing.some()]

    def _happenings(self, groups: Sequence[_Group]) -> list[_Sentence]:
        """The same of things that were named before: "the dog pushes the ball"."""
        found = self._act(groups)
        if found is None:
            return []
        actor, act, thing = found
        verb = act.action.verb if self.rng.random() < 0.5 else f"is {act.action.doing}"
        return [[actor.the(), f" {verb} ", thing.the()]]

    def _facings(self, groups: Sequence[_Group]) -> list[_Sentence]:
        return [
            [group.the(), f" faces {self.things[group.things[0]].facing}"]
            for group in groups
            if not group.many and self.things[group.things[0]].facing
        ]

    def _relation(self, a: _Group, b: _Group) -> str:
        ours, theirs = ([self.things[i].box for i in group.things] for group in (a, b))
        side = min(self.scene.width, self.scene.height)
        return relation(self.scene.world.relations, ours, theirs, side, self.rng)

    def _relations(self, groups: Sequence[_Group], most: int) -> list[_Sentence]:
        """Sentences about pairs of neighbours in the order of salience."""
        told: list[_Sentence] = []
        for a, b in itertools.pairwise(groups):
            if len(told) == most:
                break
            stands = self._relation(a, b)
            if stands:
                told.append([a.the(), f" {a.be} {stands} ", b.the()])
        return told

    def _walk(self, groups: Sequence[_Group]) -> list[_Sentence]:
        """Each group is introduced by its relation to one that was already named."""
        first = groups[0]
        told: list[_Sentence] = [[f"there {first.be} ", first.some()]]
        known = [first]
        for group in groups[1:]:
            for anchor in reversed(known[-3:]):
                stands = self._relation(group, anchor)
                if stands:
                    told.append([f"{stands} ", anchor.the(), f" {group.be} ", group.some()])
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
        return _SCATTERED

    def _cell(self, centre: tuple[float, float]) -> tuple[int, int]:
        """Column and row of nine equal cells."""
        x, y = centre
        return min(2, int(3 * x / self.scene.width)), min(2, int(3 * y / self.scene.height))


def _identity(thing: Described) -> tuple[str, ...]:
    return thing.kind, thing.colour, thing.surface, thing.size
