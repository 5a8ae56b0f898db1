"""Words of a text exchanged for those that a Florence-2 would rather have written in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.continuing import Begun, continued
from specialists.florence2.likelihood import told
from specialists.florence2.model import Florence2Model
from specialists.florence2.teacher_forcing import Asked, Likely

if TYPE_CHECKING:
    import torch

_WORD = re.compile(r"(?:\ban?\s+)?\w[\w'’-]*", re.IGNORECASE)
"""A word, an article before it included: which of the two it is depends on the word."""

_QUOTED = re.compile(r'"[^"]*(?:"|$)')
"""What is read off a sign is no word of the language: a student that cannot spell it would make one of it."""

_LOOKED_AT = 3
"""Words of a text that are tried at one time: the most doubted ones."""

_TOKENS = 10
"""Tokens that are written in the place of one word, or of one and its article, at most."""


class Text(NamedTuple):
    """The number of an image, a prompt's tokens after the image's, and a text that might answer it."""

    image: int
    prompt: tuple[int, ...]
    words: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a text is to be written anew: the number of the text, the characters, the tokens that stay before them."""

    text: int
    start: int
    end: int
    before: tuple[int, ...]


def exchanged(
    model: Florence2Model,
    features: torch.Tensor,
    texts: Sequence[Text],
    below: float,
    gain: float,
    exchanges: int,
    batch: int,
) -> list[tuple[str, float]]:
    """Each text with up to `exchanges` words exchanged, and how likely it is then (`likelihood.told`).

    A word is tried where a token of it is less than `below` times as likely as the likeliest there, and exchanged where
    the text then is at least `gain` times as likely as before. `features` are those of the images that they number.
    """
    current = list(texts)
    judged = _judged(model, features, current, batch)
    left = list(range(len(texts)))
    for _ in range(exchanges):
        places = [place for i in left for place in _doubted(model, i, current[i].words, judged[i], below)]
        written = _written(model, features, current, places, batch)
        tried = [
            (place.text, _with(current[place.text], place, words))
            for place, words in zip(places, written, strict=True)
            if words
        ]
        tried = [(i, text) for i, text in tried if text.words != current[i].words]
        likely = _judged(model, features, [text for _, text in tried], batch)
        best = {i: told(judged[i].doubt[1:]) * gain for i in left}
        left = []
        for (i, text), found in zip(tried, likely, strict=True):
            if told(found.doubt[1:]) >= best[i]:
                best[i], current[i], judged[i] = told(found.doubt[1:]), text, found
                left.append(i)
        left = sorted(set(left))
        if not left:
            break
    return [(text.words, told(found.doubt[1:])) for text, found in zip(current, judged, strict=True)]


def _judged(model: Florence2Model, features: torch.Tensor, texts: Sequence[Text], batch: int) -> list[Likely]:
    end = model.tokenizer.eos_token_id
    asked = [Asked(text.image, text.prompt, (*_tokens(model, text.words)[0], end)) for text in texts]
    return model.likelihoods(features, asked, batch) if asked else []


def _tokens(model: Florence2Model, words: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The start and a text's tokens, as many as an answer has room for; and each token's (start, end) in the text."""
    found = model.tokenizer(words, add_special_tokens=False, return_offsets_mapping=True)
    ids = found["input_ids"][: model.positions - 2]
    return [model.tokenizer.bos_token_id, *ids], [(0, 0), *found["offset_mapping"][: len(ids)]]


def _doubted(
    model: Florence2Model, number: int, words: str, likely: Likely, below: float
) -> Iterator[_Place]:
    """The most doubted words of a text, where they are doubted enough."""
    ids, spans = _tokens(model, words)
    starts = np.array([start for start, _ in spans])
    ends = np.array([end for _, end in spans])
    found: list[tuple[float, _Place]] = []
    for match in _WORD.finditer(_QUOTED.sub(lambda quoted: '"' * len(quoted[0]), words)):
        # A token may begin with the blank before its word.
        first = int(np.searchsorted(ends[1:], match.start(), side="right")) + 1
        last = int(np.searchsorted(starts[1:], match.end(), side="left")) + 1
        doubts: NDArray[np.float32] = likely.doubt[first:last]
        if len(doubts) and doubts.min() < np.log(below):
            found.append(
                (float(doubts.min()), _Place(number, match.start(), match.end(), tuple(ids[:first])))
            )
    for _, place in sorted(found, key=lambda one: (one[0], one[1].start))[:_LOOKED_AT]:
        yield place


def _written(
    model: Florence2Model, features: torch.Tensor, texts: Sequence[Text], places: Sequence[_Place], batch: int
) -> list[str]:
    """What the model writes at each place, as many words as stand there; empty where it comes to no end."""
    begun = [
        Begun(
            texts[place.text].image,
            texts[place.text].prompt,
            place.before,
            len(texts[place.text].words[place.start : place.end].split()),
        )
        for place in places
    ]
    return continued(model, features, begun, _TOKENS, batch)


def _with(text: Text, place: _Place, words: str) -> Text:
    return text._replace(words=text.words[: place.start] + words + text.words[place.end :])
