"""What a Florence-2 finds of claims that contradict a text: which of them are worth an exchange of words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from specialists.florence2.contradicting import Claim
from specialists.florence2.describing import seen_rather
from specialists.florence2.exchanging import Exchange, Text, said_rather
from specialists.florence2.model import Florence2Model

if TYPE_CHECKING:
    import torch

_SEEN_AT_MOST = 6.0
"""The logarithm of what one look at a place counts for at most, a factor of 400.

That a description would be 1e20 times less likely with another word says that the word does not go there, no more.
"""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A claim about the text of this number, and the descriptions of the things that it is about."""

    text: int
    claim: Claim
    descriptions: tuple[Text, ...]


class Weighed(NamedTuple):
    """An exchange, and the logarithm of how much more probable the model finds the text to be right with it."""

    exchange: Exchange
    worth: float


def weighed(
    model: Florence2Model,
    features: torch.Tensor,
    texts: Sequence[Text],
    contradictions: Sequence[Contradiction],
    gain: float,
    batch: int,
) -> dict[int, list[Weighed]]:
    """By text the exchanges that are worth a factor of `gain` or more, of each word the best; they do not overlap.

    Of the words by which the description of a thing could replace one, it is that in whose place the old one fits best
    there: a colour in that of a colour. `features` are those of the images that `texts` number.
    """
    looks = [one for one in contradictions if one.descriptions]
    fits = seen_rather(
        model,
        features,
        [one.descriptions for one in looks],
        [(one.claim.old, one.claim.new) for one in looks],
        batch,
    )
    slots: dict[tuple[int, int, tuple[int, ...]], tuple[float, float, Contradiction]] = {}
    for one, (fit, seen) in zip(looks, fits, strict=True):
        slot = (one.text, one.claim.end, one.claim.places)
        if slot not in slots or slots[slot][0] < fit:
            slots[slot] = (fit, min(seen, _SEEN_AT_MOST), one)
    tried = [(one, seen) for _, seen, one in slots.values() if seen > 0]
    # Numbers rest on no description of a thing: the text alone judges them.
    tried += [(one, 0.0) for one in contradictions if not one.descriptions]
    options = [Exchange(one.text, one.claim.start, one.claim.end, one.claim.words) for one, _ in tried]
    said = said_rather(model, features, texts, options, batch)
    worths = [
        Weighed(option, seen + rise)
        for option, (_, seen), rise in zip(options, tried, said, strict=True)
        if seen + rise >= math.log(gain)
    ]
    found: dict[int, list[Weighed]] = {}
    for one_worth in sorted(worths, key=lambda one: -one.worth):
        some = found.setdefault(one_worth.exchange.text, [])
        if not any(_overlap(one_worth.exchange, other) for other, _ in some):
            some.append(one_worth)
    return found


def _overlap(a: Exchange, b: Exchange) -> bool:
    return a.start < b.end and b.start < a.end
