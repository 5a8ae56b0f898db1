"""Phrases that name nothing which could be pointed at in a picture.

FLD-5B leaves such phrases out of its triplets by a blacklist, of pronouns and abstract nouns among others
(arXiv 2311.06242, section 4.2). Florence-2's released post-processing has a list of pronouns, quantities
and words about the picture itself; this one is longer, and does not mind capitals.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words(
    """a an the this that these those my your his her its our their some any each every all both no another
    other such what which whose"""
)

_PRONOUNS = _words(
    """i me mine myself you yours yourself yourselves he him himself she hers herself it itself we us ours
    ourselves they them theirs themselves one ones oneself who whom whoever anybody anyone anything everybody
    everyone everything nobody none nothing somebody someone something others few many much more most several
    rest"""
)

_PICTURE = _words(
    """image images picture pictures photo photos photograph photographs pic pics snapshot shot screenshot view
    close-up closeup scene background foreground caption"""
) | {"close up", "close - up"}

_AMOUNTS = _words(
    """group groups set sets lot lots number bunch pair couple variety collection series array row rows kind
    kinds type types sort part parts piece bit amount object objects thing things stuff item items"""
)

_PLACES = _words(
    """front back top bottom side sides left right middle center centre edge corner end distance
    surface area place spot direction position inside outside"""
) | {"left side", "right side", "top left", "top right", "bottom left", "bottom right"}

_ABSTRACT = _words(
    """way ways time times day moment order use action motion progress process idea fact case example detail
    details style purpose activity event fun life love work nature focus attention shape color colour size
    look appearance"""
)

_NOTHING = _PRONOUNS | _PICTURE | _AMOUNTS | _PLACES | _ABSTRACT

_EDGES = re.compile(r"^[\W_]+|[\W_]+$")


def names_nothing(phrase: str) -> bool:
    """Whether a noun phrase, without its determiners and whatever its letters' case, names no thing.

    "The image", "someone", "lots", "the left side" and "these" do not; "a white background" does. The last
    word counts in singular and plural.
    """
    plain = plain_phrase(phrase)
    return not plain or plain in _NOTHING or lemma(phrase) in _NOTHING


def plain_phrase(phrase: str) -> str:
    """A phrase in lower case, without determiners before it and punctuation around it."""
    words = _EDGES.sub("", phrase.casefold()).split()
    while words and words[0] in _DETERMINERS:
        words = words[1:]
    return " ".join(words)


def lemma(phrase: str) -> str:
    """A plain phrase with the usual endings of English plurals taken off its last word: "The Logos" is "logo"."""
    words = plain_phrase(phrase)
    if words.endswith("ies") and len(words) > 4:
        return words[:-3] + "y"
    buses = words.endswith("uses") and not words.endswith(("auses", "ouses"))
    if buses or words.endswith(("ches", "shes", "sses", "xes")):
        return words[:-2]
    return words[:-1] if words.endswith("s") and not words.endswith(("ss", "us", "is")) else words
