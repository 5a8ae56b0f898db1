"""Where the phrases that Florence-2 grounded stand in the text that it was given."""

from __future__ import annotations

import re
from collections.abc import Sequence

Span = tuple[int, int]

_GAP = r"[\s<]+"
"""A prompt holds one space where the text has any white space or a `<` (`prompts.prompt_text`)."""


def phrase_spans(text: str, phrases: Sequence[str]) -> list[Span | None]:
    """The characters of `text` that each phrase fills, in the order of `phrases`; None if it is not there.

    Case and white space do not count. Phrases are taken in order, and each takes its first occurrence
    that no earlier one has taken: two times "a dog" are the first and the second dog, and "dog" after
    "dog bed" is another one. Whole words are preferred ("man" is not sought in "woman" while a man is
    there); if every occurrence is taken, the first is shared.
    """
    taken: list[Span] = []
    found: list[Span | None] = []
    for phrase in phrases:
        occurrences = _occurrences(text, phrase)
        free = [span for span in occurrences if not any(span[0] < e and s < span[1] for s, e in taken)]
        span = next(iter(free or occurrences), None)
        if span is not None:
            taken.append(span)
        found.append(span)
    return found


def _occurrences(text: str, phrase: str) -> list[Span]:
    words = [re.escape(word) for word in re.split(_GAP, phrase) if word]
    if not words:
        return []
    pattern = _GAP.join(words)
    for whole in (rf"(?<!\w){pattern}(?!\w)", pattern):
        spans = [match.span() for match in re.finditer(whole, text, re.IGNORECASE)]
        if spans:
            return spans
    return []
