"""Prompt templates: plain text with named fields, which data can fill but never be.

Only `{name}` with a name from a fixed list is understood (and `{{`, `}}` for braces), none of the rest of
`str.format`: an attribute or an index in a template could reach into objects. What fills a field is put
in as it is and not looked at again.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError


class Template:
    """A template that has been read; `fields` are the names in it. Raises RecipeError."""

    def __init__(self, text: str, known: Sequence[str]) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise RecipeError(
                f"the prompt cannot be read: {error}", "write a brace that is meant as one twice: {{ or }}"
            ) from error
        self._parts: list[tuple[str, str | None]] = []
        for literal, name, form, conversion in parts:
            if name is not None and (form or conversion or name not in known):
                shown = name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise RecipeError(
                    f"the prompt has no field {{{shown[:60]}}}{did_you_mean(name, known)}",
                    "correct the field, or write a brace that is meant as one twice: {{ or }}",
                )
            self._parts.append((literal, name))
        self.fields = frozenset(name for _, name in self._parts if name is not None)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with each field's value in its place; `values` has all `fields`."""
        return "".join(literal + ("" if name is None else values[name]) for literal, name in self._parts)
