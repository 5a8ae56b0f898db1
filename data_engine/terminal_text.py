"""Text from data on its way to a terminal, which takes some characters for orders."""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (an escape sequence may set a title, or type), line separators, those that turn the direction
of writing, and surrogates, which cannot be written at all."""


def plain(text: str) -> str:
    """The text on one line, with such characters as escapes (`\\x1b`). Tabs and line breaks are among them."""
    return _CONTROL.sub(lambda m: m.group().encode("unicode_escape").decode(), text)


def plain_lines(text: str) -> str:
    """The same of each of its lines; line breaks stay. For what this project lays out itself."""
    return "\n".join(plain(line) for line in text.split("\n"))
