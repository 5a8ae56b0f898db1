"""Text from outside, without the characters that no reader sees."""

from __future__ import annotations

import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, but Persian, Indic scripts and emoji are spelt with them."""

_UNSEEN = frozenset({"Cc", "Cf", "Co", "Cs"})

_SPACES = re.compile(r"\s+")


def one_line(text: str, limit: int | None = None) -> str:
    """`text` on one line with single spaces, cut to `limit` characters (the last is then an ellipsis).

    Controls, surrogates, private use and formats (Unicode's Cc, Cs, Co, Cf) are removed: in direction
    overrides and tags an instruction could hide from every person who looks.
    """
    line = _SPACES.sub(" ", text)
    if not line.isascii() or not line.isprintable():
        line = "".join(c for c in line if c in _JOINERS or unicodedata.category(c) not in _UNSEEN)
        line = _SPACES.sub(" ", line)
    line = line.strip()
    if limit is None or len(line) <= limit:
        return line
    return line[: limit - 1].rstrip() + "…"
