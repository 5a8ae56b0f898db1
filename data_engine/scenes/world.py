"""What exists in a world of scenes: kinds, colours, surfaces, backgrounds, actions, words on signs.

There are two. Models are made in the *pretraining* world; the *target* world has other kinds, colours,
surfaces, relations, actions and backgrounds, so that a model can be adapted to it without having seen
its truth. They share English, the three sizes and the optics.

Order is part of the format: class ids are positions in `class_names`, and random draws index these
tuples, so an entry is only ever appended, together with a higher `write.GENERATOR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError

RGB = tuple[int, int, int]

SIZES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"small": (0.11, 0.15), "medium": (0.20, 0.26), "large": (0.34, 0.42)}
)
"""Extent of an object as a share of the picture's shorter side: lower and upper bound."""

PLAIN = "plain"
"""The surface of a thing that has neither a texture nor a material to name."""


@dataclass(frozen=True)
class Action:
    """What an actor does to another thing. `pose` is how that looks: one of `actions.POSES`."""

    pose: str
    verb: str
    """Third person singular, as in "pushes"."""
    doing: str
    """As in "pushing"."""


@dataclass(frozen=True)
class World:
    """`kinds` are all objects, of which `actors` can act and face a side, and `labelled` may bear a
    sticker with writing. `sign` is the class of a panel with text. A surface is a texture (said before
    the colour, "a striped red star") or a material (said after it, "a red wooden star").
    `tones` and `patterns` make backgrounds; `panels` are colours of a sign and of its ink."""

    name: str
    kinds: tuple[str, ...]
    actors: tuple[str, ...]
    labelled: tuple[str, ...]
    sign: str
    colours: Mapping[str, RGB]
    textures: tuple[str, ...]
    materials: tuple[str, ...]
    tones: Mapping[str, RGB]
    patterns: tuple[str, ...]
    panels: tuple[tuple[RGB, RGB, str], ...]
    """The panel's colour, its ink's, and the panel's name."""
    actions: tuple[Action, ...]
    relations: str
    """Which relations are told: those of `relations.RELATIONS`."""
    hides: tuple[str, ...]
    """How it is said that a thing covers part of another."""
    places: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """A detector's classes: what a thing is, whatever its colour, size or surface."""
        return (*self.kinds, self.sign)


_WHITE, _BLACK = (250, 250, 250), (28, 28, 30)

PRETRAINING = World(
    name="pretraining",
    kinds=(
        "circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "pentagon",
        "arrow", "house", "cup", "tree", "boat", "flower", "key", "ball", "dog", "robot", "bird",
    ),
    actors=("dog", "robot", "bird"),
    labelled=("circle", "square", "house", "cup"),
    sign="sign",
    colours=MappingProxyType({
        "red": (214, 32, 38),
        "orange": (247, 132, 12),
        "yellow": (246, 213, 24),
        "green": (34, 145, 54),
        "blue": (34, 84, 214),
        "purple": (128, 42, 168),
        "pink": (248, 112, 178),
        "brown": (122, 70, 28),
        "black": _BLACK,
        "white": _WHITE,
    }),
    textures=("striped", "dotted", "checkered"),
    materials=("wooden", "metal", "glass"),
    tones=MappingProxyType({
        "light gray": (214, 216, 219),
        "dark gray": (84, 88, 94),
        "beige": (234, 220, 194),
        "pale blue": (196, 216, 238),
        "pale green": (202, 230, 204),
        "pale pink": (244, 214, 220),
        "dark blue": (38, 50, 88),
        "dark green": (36, 74, 54),
    }),
    patterns=("plain", "gradient", "speckled", "striped"),
    panels=(
        (_WHITE, _BLACK, "white"), (_WHITE, (34, 84, 214), "white"), (_WHITE, (214, 32, 38), "white"),
        ((246, 213, 24), _BLACK, "yellow"), ((34, 84, 214), _WHITE, "blue"), ((34, 145, 54), _WHITE, "green"),
        ((214, 32, 38), _WHITE, "red"), (_BLACK, _WHITE, "black"),
    ),
    actions=(
        Action("push", "pushes", "pushing"),
        Action("carry", "carries", "carrying"),
        Action("pull", "pulls", "pulling"),
        Action("jump", "jumps over", "jumping over"),
    ),
    relations="sides",
    hides=("partly hides", "covers part of"),
    places=(
        "Cafe", "Market", "Bakery", "Museum", "Station", "Harbor", "Books", "Garden", "Bridge", "Square",
        "School", "Hotel", "Theater", "Tower", "Street", "Park",
    ),
    notices=(
        "OPEN", "CLOSED", "EXIT", "STOP", "WELCOME", "PARKING", "TICKETS", "NO ENTRY", "FRESH BREAD", "SLOW DOWN",
    ),
)  # fmt: skip

TARGET = World(
    name="target",
    kinds=(
        "hexagon", "oval", "drop", "leaf", "bell", "lamp", "bottle", "mushroom", "umbrella", "anchor",
        "crown", "balloon", "rocket", "bolt", "diamond", "hammer", "box", "cat", "snail", "penguin",
    ),
    actors=("cat", "snail", "penguin"),
    labelled=("hexagon", "oval", "box"),
    sign="label",
    colours=MappingProxyType({
        "teal": (0, 128, 122),
        "maroon": (126, 14, 44),
        "navy": (18, 28, 98),
        "olive": (128, 126, 22),
        "gold": (212, 166, 40),
        "lavender": (178, 148, 232),
        "turquoise": (52, 214, 200),
        "coral": (255, 118, 92),
        "gray": (140, 142, 146),
        "cream": (255, 246, 212),
    }),
    textures=("zigzag", "speckled", "hatched"),
    materials=("woolen", "stone", "paper"),
    tones=MappingProxyType({
        "sand": (222, 200, 158),
        "slate": (72, 84, 98),
        "mint": (190, 232, 214),
        "lilac": (222, 206, 236),
        "charcoal": (50, 52, 54),
        "peach": (250, 216, 188),
        "sky blue": (170, 210, 244),
        "dark brown": (66, 46, 36),
    }),
    patterns=("plain", "tiled", "wavy", "blotchy"),
    panels=(
        ((255, 246, 212), _BLACK, "cream"), ((255, 246, 212), (126, 14, 44), "cream"),
        ((212, 166, 40), _BLACK, "gold"), ((0, 128, 122), _WHITE, "teal"), ((18, 28, 98), _WHITE, "navy"),
        ((126, 14, 44), _WHITE, "maroon"),
    ),
    actions=(
        Action("chase", "chases", "chasing"),
        Action("balance", "balances", "balancing"),
        Action("hold", "holds", "holding"),
        Action("kick", "kicks", "kicking"),
    ),
    relations="corners",
    hides=("stands in front of", "overlaps"),
    places=(
        "Library", "Airport", "Clinic", "Castle", "Bay", "Gallery", "Kitchen", "Farm", "Island", "Valley",
        "Studio", "Arena",
    ),
    notices=(
        "FRAGILE", "SALE", "DANGER", "PUSH", "PULL", "KEEP OUT", "THIS WAY UP", "HANDLE WITH CARE", "FREE", "NEW",
    ),
)  # fmt: skip

WORLDS: Mapping[str, World] = MappingProxyType({world.name: world for world in (PRETRAINING, TARGET)})


def find_world(name: str) -> World:
    """Raises RecipeError for a name that is none of `WORLDS`."""
    if name not in WORLDS:
        raise RecipeError(
            f"there is no world {name!r}{did_you_mean(name, list(WORLDS))}",
            f"choose from {', '.join(WORLDS)}",
        )
    return WORLDS[name]
