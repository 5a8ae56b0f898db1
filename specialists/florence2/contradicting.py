"""Where a text mentions things that are described, and what it says of them that their descriptions do not say.

Only words are compared here, none is known: a mention is a noun phrase whose last word is that of some description, and
the words before it are what is said of the thing.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from data_engine.blacklist import lemma
from specialists.florence2.spans import Span

_WORD = re.compile(r"\w[\w'’-]*")

_QUOTED = re.compile(r'"[^"]*(?:"|$)')

_ARTICLES = frozenset(("a", "an", "the"))

_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

_LACKING = 2
"""Words of a mention that its thing lacks, at most: with more of them it is another thing."""

_BEFORE = 5
"""Words between an article, or a number, and the noun of a mention that nobody has linked, at most."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`words` would stand at the characters `start` to `end` of a text, if it said of some things what their descriptions
    say: of them `places` are the numbers, and in each of them the word `old` would stand for `new` if the text is right.
    """

    start: int
    end: int
    words: str
    places: tuple[int, ...]
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mention:
    """Characters of a text that name a thing, or `many`; the numbers of the things that have all words said of them, where
    those are not too few; and what contradicts it. Claims that replace the same word are alternatives.
    """

    span: Span
    many: bool
    fitting: tuple[int, ...]
    claims: tuple[Claim, ...]


class _Word(NamedTuple):
    text: str
    span: Span


def mentions(
    text: str, links: Sequence[tuple[Span, Sequence[int]]], described: Sequence[str]
) -> list[Mention]:
    """The mentions in a text of things with these descriptions, in its order.

    `links` are phrases of the text and the numbers of the things that each is known to point at. A phrase is held against
    those things, or where none of them is of its kind, and of nouns without a link, against all things of the kind. It is
    contradicted where no thing of its kind has all words that it says: "a red star" of "a small blue star", where there
    is no red one; and where neither as many of them have as it counts, nor as many as it is linked to.
    """
    by_noun: dict[str, list[int]] = {}
    said = [_words(words) for words in described]
    for number, words in enumerate(said):
        if words:
            by_noun.setdefault(_noun(words), []).append(number)
    unquoted = _QUOTED.sub(lambda quoted: '"' * len(quoted[0]), text)
    known = [(span, tuple(dict.fromkeys(numbers))) for span, numbers in links]
    known += [(span, ()) for span in _unlinked(unquoted, [span for span, _ in links], by_noun)]
    found: list[Mention] = []
    for (start, end), own in sorted(known):
        every = _all_words(unquoted[start:end], start)
        words = _words(unquoted[start:end], start)
        things = by_noun.get(_noun(words), []) if words else []
        if things:
            attributes = {number: _attributes(said[number]) for number in things}
            count = next((word for word in every if word.text.casefold() in _COUNTS), None)
            claimed = set(_attributes(words))
            fitting = tuple(number for number, has in attributes.items() if claimed <= set(has))
            many = _is_plural(words)
            needed = 2 if many else 1
            if len(fitting) < needed:
                claims = _claims(text, words, own, attributes)
            elif count is not None and many:
                claims = _counted(text, count, {len(fitting), len({*fitting}.intersection(own))})
            else:
                claims = iter(())
            fitting = fitting if len(fitting) >= needed else ()
            found.append(Mention((start, end), many, fitting, tuple(claims)))
    return found


def _claims(
    text: str, words: Sequence[_Word], own: Sequence[int], attributes: Mapping[int, list[str]]
) -> Iterator[Claim]:
    """`attributes` are those of all things of the mention's kind, by their numbers."""
    claimed = _attributes(words)
    meant = [number for number in own if number in attributes]
    if _is_plural(words):
        groups = [tuple(meant)] if meant else [tuple(attributes)] if len(attributes) > 1 else []
    else:
        groups = [(number,) for number in meant or attributes]
    for group in groups:
        lacking = {word for number in group for word in claimed if word not in attributes[number]}
        if len(lacking) > _LACKING:
            continue
        for old in words:
            if old.text.casefold() in lacking:
                for new in attributes[group[0]]:
                    if new not in claimed and all(new in attributes[number] for number in group):
                        yield _claim(text, old, new, group)


def _counted(text: str, count: _Word, numbers: set[int]) -> Iterator[Claim]:
    said = _COUNTS.index(count.text.casefold()) + 1
    for number in sorted(numbers) if said not in numbers else ():
        if 1 < number <= len(_COUNTS):
            yield _claim(text, count, _COUNTS[number - 1], ())


def _claim(text: str, old: _Word, new: str, places: tuple[int, ...]) -> Claim:
    """With the article before the word, where there is one: which of the two it is depends on the word."""
    start, end = old.span
    before = re.search(r"\b(an?)\s+$", text[:start], re.IGNORECASE)
    if before is None:
        return Claim(
            start, end, new.capitalize() if old.text[0].isupper() else new, places, old.text.casefold(), new
        )
    article = "an" if new[0] in "aeiou" else "a"
    article = article.capitalize() if before[1][0].isupper() else article
    return Claim(before.start(), end, f"{article} {new}", places, old.text.casefold(), new)


def _unlinked(text: str, taken: Sequence[Span], nouns: Container[str]) -> Iterator[Span]:
    """Nouns of these with an article or a number before them, outside of what is taken."""
    words = [_Word(match[0], match.span()) for match in _WORD.finditer(text)]
    for place, word in enumerate(words):
        if lemma(word.text) not in nouns or any(
            word.span[0] < end and start < word.span[1] for start, end in taken
        ):
            continue
        for first in range(place - 1, max(place - 2 - _BEFORE, -1), -1):
            if not text[words[first].span[1] : words[first + 1].span[0]].isspace():
                break
            if words[first].text.casefold() in (*_ARTICLES, *_COUNTS):
                span = (words[first].span[0], word.span[1])
                if not any(span[0] < end and start < span[1] for start, end in taken):
                    yield span
                break


def _all_words(phrase: str, start: int = 0) -> list[_Word]:
    return [_Word(match[0], (match.start() + start, match.end() + start)) for match in _WORD.finditer(phrase)]


def _words(phrase: str, start: int = 0) -> list[_Word]:
    """The words of a phrase that begins at a character, without articles and numbers before them."""
    words = _all_words(phrase, start)
    while words and (words[0].text.casefold() in (*_ARTICLES, *_COUNTS) or words[0].text.isdigit()):
        words = words[1:]
    return words


def _noun(words: Sequence[_Word]) -> str:
    return lemma(words[-1].text)


def _is_plural(words: Sequence[_Word]) -> bool:
    return words[-1].text.casefold() != _noun(words)


def _attributes(words: Sequence[_Word]) -> list[str]:
    return [word.text.casefold() for word in words[:-1]]
