"""Words of a text exchanged for others, and how much likelier a Florence-2 finds the text with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specialists.florence2.model import Florence2Model
from specialists.florence2.teacher_forcing import Asked

if TYPE_CHECKING:
    import torch


class Text(NamedTuple):
    """The number of an image, a prompt's tokens after the image's, and a text that might answer it."""

    image: int
    prompt: tuple[int, ...]
    words: str


class Exchange(NamedTuple):
    """`words` for the characters `start` to `end` of the text of this number."""

    text: int
    start: int
    end: int
    words: str


def with_exchanges(words: str, exchanges: Sequence[Exchange]) -> str:
    """A text with words exchanged at places that do not overlap."""
    for one in sorted(exchanges, key=lambda exchange: -exchange.start):
        words = words[: one.start] + one.words + words[one.end :]
    return words


def log_probabilities(
    model: Florence2Model, features: torch.Tensor, texts: Sequence[Text], batch: int
) -> list[float]:
    """Of each text, its end included, as the answer to its prompt. `features` are those of the images that they number.

    Of a text that the decoder has no room for, that of its beginning.
    """
    start, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    asked = [
        Asked(text.image, text.prompt, (start, *model.words(text.words)[: model.positions - 2], end))
        for text in texts
    ]
    likely = model.likelihoods(features, asked, batch) if asked else []
    return [float(one.log_probs[1:].sum(dtype=np.float64)) for one in likely]


def said_rather(
    model: Florence2Model,
    features: torch.Tensor,
    texts: Sequence[Text],
    exchanges: Sequence[Exchange],
    batch: int,
) -> list[float]:
    """By how much the logarithm of its text's probability rises with each exchange."""
    touched = list(dict.fromkeys(one.text for one in exchanges))
    tried = [
        texts[one.text]._replace(words=with_exchanges(texts[one.text].words, [one])) for one in exchanges
    ]
    found = log_probabilities(model, features, [*(texts[i] for i in touched), *tried], batch)
    before = dict(zip(touched, found, strict=False))
    return [after - before[one.text] for one, after in zip(exchanges, found[len(touched) :], strict=True)]
