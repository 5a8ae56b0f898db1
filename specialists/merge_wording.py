"""Two wordings of one text: how far they are apart, and where a phrase of the one stands in the other."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

_WORD = re.compile(r"\w[\w'’-]*|[^\w\s]")

Span = tuple[int, int]


def words_apart(a: str, b: str) -> int:
    """How many words would have to be exchanged, added or taken out."""
    ours, theirs = _WORD.findall(a), _WORD.findall(b)
    same = sum(
        block.size for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    )
    return max(len(ours), len(theirs)) - same


def moved_span(before: str, after: str, span: Span) -> Span | None:
    """Where the words of `before` at `span` stand in `after`, in which some words were exchanged one for one.

    None where they are not whole words, or have no counterpart.
    """
    old, new = list(_WORD.finditer(before)), list(_WORD.finditer(after))
    counterpart = dict(zip(range(len(old)), range(len(new)), strict=False)) if len(old) == len(new) else {}
    matcher = SequenceMatcher(None, [m[0] for m in old], [m[0] for m in new], autojunk=False)
    for kind, a0, a1, b0, b1 in matcher.get_opcodes() if not counterpart else ():
        if kind == "equal" or (kind == "replace" and a1 - a0 == b1 - b0):
            counterpart.update(zip(range(a0, a1), range(b0, b1), strict=True))
    first = next((i for i, word in enumerate(old) if word.start() == span[0]), None)
    last = next((i for i, word in enumerate(old) if word.end() == span[1]), None)
    if first is None or last is None or first not in counterpart or last not in counterpart:
        return None
    return new[counterpart[first]].start(), new[counterpart[last]].end()
