"""What exists in the world of scenes: kinds, colours, sizes, backgrounds and the words on signs.

Order is part of the format: class ids are positions in `CLASS_NAMES`, and random draws index these
tuples, so an entry is only ever appended, together with a higher `write.GENERATOR`.
"""

from __future__ import annotations

import numpy as np

RGB = tuple[int, int, int]

KINDS: tuple[str, ...] = (
    "circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent", "pentagon",
    "arrow", "house", "cup", "tree", "boat", "flower", "key",
)  # fmt: skip

SIGN = "sign"

CLASS_NAMES: tuple[str, ...] = (*KINDS, SIGN)
"""The detector's classes: what a thing is, whatever its colour or size."""

COLOURS: dict[str, RGB] = {
    "red": (214, 32, 38),
    "orange": (247, 132, 12),
    "yellow": (246, 213, 24),
    "green": (34, 145, 54),
    "blue": (34, 84, 214),
    "purple": (128, 42, 168),
    "pink": (248, 112, 178),
    "brown": (122, 70, 28),
    "black": (28, 28, 30),
    "white": (250, 250, 250),
}

SIZES: dict[str, tuple[float, float]] = {
    "small": (0.11, 0.15),
    "medium": (0.20, 0.26),
    "large": (0.34, 0.42),
}
"""Extent of an object as a share of the picture's shorter side: lower and upper bound."""

TONES: dict[str, RGB] = {
    "light gray": (214, 216, 219),
    "dark gray": (84, 88, 94),
    "beige": (234, 220, 194),
    "pale blue": (196, 216, 238),
    "pale green": (202, 230, 204),
    "pale pink": (244, 214, 220),
    "dark blue": (38, 50, 88),
    "dark green": (36, 74, 54),
}
"""Colours of backgrounds, apart from those of objects so that nothing vanishes into its ground."""

PATTERNS: tuple[str, ...] = ("plain", "gradient", "speckled", "striped")

PANELS: tuple[tuple[str, str], ...] = (
    ("white", "black"), ("white", "blue"), ("white", "red"), ("yellow", "black"),
    ("blue", "white"), ("green", "white"), ("red", "white"), ("black", "white"),
)  # fmt: skip
"""Colours of a sign: its panel and the ink of its text."""

PLACES: tuple[str, ...] = (
    "Cafe", "Market", "Bakery", "Museum", "Station", "Harbor", "Books", "Garden", "Bridge", "Square",
    "School", "Hotel", "Theater", "Tower", "Street", "Park",
)  # fmt: skip

NOTICES: tuple[str, ...] = (
    "OPEN", "CLOSED", "EXIT", "STOP", "WELCOME", "PARKING", "TICKETS", "NO ENTRY", "FRESH BREAD", "SLOW DOWN",
)  # fmt: skip

_ONSETS = ("B", "D", "F", "G", "H", "K", "M", "N", "P", "R", "S", "T", "V", "W", "Br", "Gr", "Tr", "St")
_VOWELS = ("a", "e", "i", "o", "u")
_MIDDLES = ("b", "d", "g", "k", "m", "n", "r", "s", "t", "v", "nd", "rt", "st", "mb", "rk", "lm", "nt")
_ENDS = ("a", "o", "en", "er", "on", "us", "am", "et")

NUMBERS: tuple[str, ...] = ("no", "one", "two", "three", "four", "five", "six")


def invented_name(rng: np.random.Generator) -> str:
    """A proper name that nobody bears, of two or three syllables, such as "Bramonda" or "Tirken"."""

    def pick(parts: tuple[str, ...]) -> str:
        return parts[int(rng.integers(len(parts)))]

    middle = pick(_MIDDLES) + pick(_VOWELS) if rng.random() < 0.4 else ""
    return pick(_ONSETS) + pick(_VOWELS) + middle + pick(_MIDDLES) + pick(_ENDS)


def plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def article(phrase: str) -> str:
    """Either "a" or "an". Letters decide: no word of this world begins with a silent h or a spoken u."""
    return "an" if phrase[0] in "aeiou" else "a"
