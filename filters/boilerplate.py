"""Drop texts that describe nothing: file names, addresses, and what shops and agencies write under every picture.

Alt-text of the web is full of them, and captioners that were trained on it say them too. The patterns are in
RE2's syntax, matched by Arrow over whole columns; write more of them in the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import RecipeError

VERSION = 1

FILE_NAME = r"(?i)^\s*\S+\.(jpe?g|png|gif|webp|tiff?|bmp|svg|heic|raw)\s*$"
CAMERA_NAME = r"(?i)^\s*(img|dsc|dscn|dscf|pict?|image|photo|screenshot|untitled|p)[\s_\-]*\d[\d\s_\-().:]*$"
ADDRESS = r"(?i)\b(https?://|www\.)\S+|\b[a-z0-9\-]+\.(com|net|org|de|co\.uk|jpg|html?)\b"
NUMBERS = r"^\P{L}*$"
WORDS = (
    r"(?i)\b(all rights reserved|stock (photo|image|illustration|vector)s?|royalty[\s\-]free|click (here|to)"
    r"|image (may contain|not available|result)|no (photo|image) (description )?available|photo (by|credit)"
    r"|shutterstock|getty images|alamy|istock|add to cart|free shipping|buy now|for sale|download)\b|©|&(amp|nbsp|quot);"
)

PATTERNS = (FILE_NAME, CAMERA_NAME, ADDRESS, NUMBERS, WORDS)


class Boilerplate:
    """Drops texts in which one of `PATTERNS`, or of `patterns`, is found; rows without text stay.

    `built_in`: false leaves only those of the recipe. The value is the number of the pattern, from 1, the
    recipe's own after the built-in ones. Raises RecipeError for a pattern that RE2 does not take.
    """

    columns = ("text",)

    def __init__(self, patterns: Sequence[str] = (), built_in: bool = True) -> None:
        if isinstance(patterns, str):
            raise RecipeError("`patterns` is one string", "write a list")
        self.patterns = [*(PATTERNS if built_in else ()), *patterns]
        for pattern in self.patterns:
            try:
                pc.match_substring_regex(pa.array([""]), pattern)
            except pa.ArrowInvalid as error:
                raise RecipeError(
                    f"the pattern {pattern!r} is none: {' '.join(str(error).split())}",
                    "write it in RE2's syntax",
                ) from error

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.is_null(self.values(annotations))

    def values(self, annotations: pa.Table) -> pa.Array:
        texts = annotations["text"].combine_chunks()
        found = pa.nulls(len(texts), pa.float32())
        for number, pattern in enumerate(self.patterns, 1):
            hit = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
            found = pc.coalesce(found, pc.if_else(hit, pa.scalar(number, pa.float32()), None))
        return found
