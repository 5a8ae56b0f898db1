"""Changes of a text as edits, so that spans of the old text can be found again in the new one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edit:
    """`text[start:end]` becomes `new`. With `start == end` it is an insertion.

    `inside`: a span that holds it stays one, with other words; otherwise such a span is broken.
    """

    start: int
    end: int
    new: str
    inside: bool = False

    @property
    def growth(self) -> int:
        return len(self.new) - (self.end - self.start)


def edited(text: str, edits: Sequence[Edit]) -> str:
    """The new text. Edits are in order and do not overlap."""
    pieces: list[str] = []
    at = 0
    for edit in edits:
        pieces += [text[at : edit.start], edit.new]
        at = edit.end
    return "".join((*pieces, text[at:]))


def moved_span(span: Span, edits: Sequence[Edit]) -> Span | None:
    """Where a span of the old text lies in the new one, longer or shorter by the edits inside of it.

    None where an edit breaks it: one that crosses its border, replaces all of it, or is not `inside`.
    """
    start, end = span
    new_start, new_end = start, end
    for edit in edits:
        if edit.end <= start:
            new_start += edit.growth
            new_end += edit.growth
        elif edit.start >= end:
            continue
        elif edit.inside and start <= edit.start and edit.end <= end and edit.end - edit.start < end - start:
            new_end += edit.growth
        else:
            return None
    return new_start, new_end


_ARTICLE = re.compile(r"\b(an?)\s+\Z", re.IGNORECASE)


def exchanged(text: str, start: int, end: int, new: str) -> list[Edit]:
    """Put `new` for the word or words `text[start:end]`, in their case, and mend the article before them."""
    old = text[start:end]
    if old.isupper() and len(old) > 1:
        new = new.upper()
    elif old[:1].isupper():
        new = new[:1].upper() + new[1:]
    edits = [Edit(start, end, new, inside=True)]
    article = _ARTICLE.search(text, 0, start)
    if article:
        was = article[1]
        now = was[0] + ("n" if new[:1].lower() in "aeiou" else "")
        if now.lower() != was.lower():
            edits.insert(0, Edit(article.start(1), article.end(1), now, inside=True))
    return edits
