"""Drop texts too short to describe anything, or too long to be a description.

DataComp's basic filter keeps captions of more than 2 words and more than 5 characters.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

VERSION = 1


class TextLength:
    """Keeps texts within the given numbers of words and characters; rows without text are kept."""

    columns = ("text",)

    def __init__(
        self, minimum_words: int = 3, minimum_characters: int = 6, maximum_characters: int = 10_000
    ) -> None:
        self.minimum_words = minimum_words
        self.minimum_characters = minimum_characters
        self.maximum_characters = maximum_characters

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        characters = pc.utf8_length(annotations["text"])
        long_enough = pc.and_(
            pc.greater_equal(self.values(annotations), self.minimum_words),
            pc.greater_equal(characters, self.minimum_characters),
        )
        fits = pc.and_(long_enough, pc.less_equal(characters, self.maximum_characters))
        return pc.fill_null(fits, True).combine_chunks()

    def values(self, annotations: pa.Table) -> pa.Array:
        """Words of each text."""
        # White space is what Python's `str.split` takes for it; of an empty text one empty word comes back.
        trimmed = pc.utf8_trim_whitespace(annotations["text"])
        words = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
        words = pc.if_else(pc.equal(trimmed, ""), 0, words)
        return pc.cast(words, pa.float32()).combine_chunks()
