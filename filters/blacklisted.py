"""Drop phrases that name nothing which could be pointed at: pronouns, "the image", "lots", "the left side", "time".

FLD-5B's blacklist (arXiv 2311.06242, section 4.2); the words are in data_engine.blacklist.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from data_engine.blacklist import lemma, names_nothing
from data_engine.errors import RecipeError

VERSION = 2


class Blacklisted:
    """Drops rows whose text names nothing, whatever its case, its article and its number.

    - `words`: further phrases to drop: `[logo, watermark]`. `but`: phrases to keep all the same. Both in
      singular or plural.

    Rows without text stay. Raises RecipeError.
    """

    columns = ("text",)

    def __init__(self, words: Sequence[str] = (), but: Sequence[str] = ()) -> None:
        if isinstance(words, str) or isinstance(but, str):
            raise RecipeError("`words` and `but` are lists", "write [a, b]")
        self.words = {lemma(word) for word in words}
        self.but = {lemma(word) for word in but}

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        # There are few different phrases among many rows.
        coded = annotations["text"].combine_chunks().dictionary_encode()
        keep = pa.array([self._names(phrase) for phrase in coded.dictionary.to_pylist()], pa.bool_())
        return keep.take(coded.indices).fill_null(True)

    def _names(self, phrase: str) -> bool:
        word = lemma(phrase)
        return word in self.but or (word not in self.words and not names_nothing(phrase))
