"""The little English that captions and signs need: plurals, articles, numbers, invented names."""

from __future__ import annotations

import numpy as np

NUMBERS: tuple[str, ...] = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_ONSETS = ("B", "D", "F", "G", "H", "K", "M", "N", "P", "R", "S", "T", "V", "W", "Br", "Gr", "Tr", "St")
_VOWELS = ("a", "e", "i", "o", "u")
_MIDDLES = ("b", "d", "g", "k", "m", "n", "r", "s", "t", "v", "nd", "rt", "st", "mb", "rk", "lm", "nt")
_ENDS = ("a", "o", "en", "er", "on", "us", "am", "et")

_IRREGULAR = {"leaf": "leaves", "fish": "fish"}


def invented_name(rng: np.random.Generator) -> str:
    """A proper name that nobody bears, of two or three syllables, such as "Bramonda" or "Tirken"."""

    def pick(parts: tuple[str, ...]) -> str:
        return parts[int(rng.integers(len(parts)))]

    middle = pick(_MIDDLES) + pick(_VOWELS) if rng.random() < 0.4 else ""
    return pick(_ONSETS) + pick(_VOWELS) + middle + pick(_MIDDLES) + pick(_ENDS)


def plural(noun: str) -> str:
    """The plural of a noun phrase, whose last word is its noun."""
    *before, last = noun.split(" ")
    if last in _IRREGULAR:
        many = _IRREGULAR[last]
    else:
        many = last + ("es" if last.endswith(("s", "x", "ch", "sh")) else "s")
    return " ".join([*before, many])


def article(phrase: str) -> str:
    """Either "a" or "an". Letters decide: no word of the worlds begins with a silent h or a spoken u,
    but for "umbrella", where letters are right too."""
    return "an" if phrase[0] in "aeiou" else "a"
