"""Reading what a text says of a scene: its noun phrases, and whether the scene has such things.

It is the reverse of the captions. A noun phrase is a kind of thing, with the determiner and the
attributes before it: "two large striped red wooden stars". What stands in quotation marks is what a
sign says, and names nothing. Attributes are read in any order and any number, so that "a blue red star"
is not taken for "a red star".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from data_engine.scenes.english import NUMBERS, plural
from data_engine.scenes.world import PLAIN, SIZES, WORLDS, World

_DETERMINERS = ("a", "an", "the")
QUOTED = re.compile(r'"[^"]*(?:"|$)')


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """`span` is (start, end) in the text's characters. `number` is that of a number word, `many` whether
    the noun is a plural, `attributes` the words between, such as {"large", "striped", "red"}."""

    span: tuple[int, int]
    number: int | None
    many: bool
    attributes: frozenset[str]
    kind: str

    def fits(self, thing: NounPhrase) -> bool:
        """Whether a thing (`Reader.things`) is of this kind and has these attributes."""
        return self.kind == thing.kind and self.attributes <= thing.attributes

    def true_of(self, things: Sequence[NounPhrase]) -> bool:
        """Whether a scene of these things is as the phrase says.

        A number word is exact, since captions of scenes name all things that their words fit: "two red
        stars" is wrong of three, "no red stars" of one. Without a number a plural wants two or more,
        and a singular ("a red star", "the red star") one or more.
        """
        count = sum(self.fits(thing) for thing in things)
        if self.number is not None:
            return count == self.number
        return count >= (2 if self.many else 1)


@dataclass(frozen=True)
class Reader:
    """Knows the words of some worlds.

    A reader of all worlds also sees what is named but does not exist in the world of the scene, where
    one of that world alone would skip it.
    """

    worlds: tuple[World, ...] = tuple(WORLDS.values())

    @cached_property
    def attributes(self) -> Mapping[str, str]:
        """Each attribute's word, and which attribute it is: `size`, `texture`, `colour` or `material`.

        "plain" counts as a texture: that of things of which neither a texture nor a material is said.
        """
        found = {**dict.fromkeys(SIZES, "size"), PLAIN: "texture"}
        for world in self.worlds:
            found |= dict.fromkeys(world.textures, "texture")
            found |= dict.fromkeys(world.colours, "colour")
            found |= dict.fromkeys(world.materials, "material")
        return found

    def phrases(self, text: str) -> list[NounPhrase]:
        """The noun phrases of a text, in order; they do not overlap."""
        unquoted = QUOTED.sub(lambda quoted: " " * len(quoted.group()), text)
        found: list[NounPhrase] = []
        for match in self._pattern.finditer(unquoted):
            words = match["attributes"].casefold()
            noun = " ".join(match["noun"].casefold().split())
            kind, many = self._nouns[noun]
            determiner = (match["determiner"] or "").casefold()
            found.append(
                NounPhrase(
                    match.span(),
                    NUMBERS.index(determiner) if determiner in NUMBERS else None,
                    many,
                    frozenset(" ".join(word.split()) for word in self._attribute.findall(words)),
                    kind,
                )
            )
        return found

    def things(self, descriptions: Sequence[str]) -> list[NounPhrase]:
        """Things by their full descriptions, such as "small striped red star"; a bare surface is plain."""
        found = [phrase for said in descriptions for phrase in self.phrases(said)]
        return [
            thing
            if any(self.attributes[word] in ("texture", "material") for word in thing.attributes)
            else replace(thing, attributes=thing.attributes | {PLAIN})
            for thing in found
        ]

    def judge(self, text: str, descriptions: Sequence[str]) -> list[bool]:
        """For each noun phrase of a text whether it is true of a scene of the things described."""
        things = self.things(descriptions)
        return [phrase.true_of(things) for phrase in self.phrases(text)]

    def fitting(self, text: str, descriptions: Sequence[str]) -> list[tuple[tuple[int, int], list[int]]]:
        """Each noun phrase of a text: its span, and which of the things described it fits, by their places.

        It fits none where it is not true of the scene: "two red stars" of three.
        """
        things = [self.things([said]) for said in descriptions]
        every = [thing for some in things for thing in some]
        return [
            (
                phrase.span,
                [place for place, some in enumerate(things) if any(map(phrase.fits, some))]
                if phrase.true_of(every)
                else [],
            )
            for phrase in self.phrases(text)
        ]

    @cached_property
    def _nouns(self) -> Mapping[str, tuple[str, bool]]:
        kinds = [kind for world in self.worlds for kind in world.class_names]
        return {plural(kind): (kind, True) for kind in kinds} | {kind: (kind, False) for kind in kinds}

    @cached_property
    def _attribute(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{_any(self.attributes)})\b", re.IGNORECASE)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(
            rf"\b(?:(?P<determiner>{_any((*_DETERMINERS, *NUMBERS))})\s+)?"
            rf"(?P<attributes>(?:(?:{_any(self.attributes)})\s+)*)"
            rf"(?P<noun>{_any(self._nouns)})\b",
            re.IGNORECASE,
        )


def _any(words: Sequence[str] | Mapping[str, object]) -> str:
    """An alternation, the longest first: none is cut short by another that begins it."""
    ordered = sorted(words, key=len, reverse=True)
    return "|".join(r"\s+".join(map(re.escape, word.split())) for word in ordered)
