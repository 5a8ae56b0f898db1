"""The sentences of English texts, by spaCy, with where they stand.

They are those of the small model that spaCy's English weights have for sentence ends alone (`senter`): it knows
abbreviations and decimal points, and takes a twentieth of the parser's time.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from typing import Any

from data_engine.errors import MissingPackageError, ModelLoadError
from specialists.noun_phrases import PARSERS

_BATCH = 64

_ENDS = "senter"

_OTHERS = ("tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer", "ner")

Sentence = tuple[str, int, int]


def sentences(texts: Sequence[str]) -> list[list[Sentence]]:
    """For each text its sentences in order, as (sentence, start, end): `text[start:end] == sentence`.

    They neither begin nor end with white space, and nothing but white space lies before, between and behind them.
    A text's sentences do not depend on the other texts. Raises MissingPackageError without spaCy or its weights,
    ModelLoadError when those do not load.
    """
    found: list[list[Sentence]] = []
    for document in _splitter().pipe(texts, batch_size=_BATCH):
        parts: list[Sentence] = []
        for sentence in document.sents if len(document) else ():
            stripped = sentence.text.strip()
            if stripped:
                start = sentence.start_char + sentence.text.index(stripped)
                parts.append((stripped, start, start + len(stripped)))
        found.append(parts)
    return found


def check_installed() -> None:
    """Raises MissingPackageError where `sentences` would for want of a package; nothing is imported."""
    if importlib.util.find_spec("spacy") is None:
        raise MissingPackageError.of("spacy", "text")
    _weights()


def _weights() -> str:
    for name in PARSERS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise MissingPackageError.of(PARSERS[0], "text")


@cache
def _splitter() -> Any:
    """The pipeline with the one part that finds sentence ends. The weights have it switched off."""
    try:
        import spacy
    except ImportError as error:
        raise MissingPackageError.of(error.name or "spacy", "text") from error
    name = _weights()
    try:
        splitter = spacy.load(name, exclude=_OTHERS)
        splitter.enable_pipe(_ENDS)
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"cannot load {name}: {' '.join(str(error).split())[:300]}",
            "install the weights again, in the version that belongs to spaCy 3.8",
        ) from error
    return splitter
