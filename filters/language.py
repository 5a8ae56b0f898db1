"""Drop texts in another language than those wanted, by py3langid (its model comes in its wheel)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import MissingPackageError, RecipeError

VERSION = 1

_REMEMBERED = 500_000


class Language:
    """Drops texts whose language is surely none of `languages` (ISO 639-1: `[en]`).

    The value is the probability of the wanted languages together. A text is dropped where that is below
    `minimum`: 0.02 keeps "a dog" and "red cup", which are too short to be sure of, and drops a whole sentence
    of another language. Texts of fewer than `minimum_words` words, and rows without text, stay.

    Each different text is looked at once, and not again while it is among the last ones. Raises RecipeError
    and MissingPackageError.
    """

    columns = ("text",)

    def __init__(
        self, languages: Sequence[str] = ("en",), minimum: float = 0.02, minimum_words: int = 3
    ) -> None:
        if not languages or isinstance(languages, str) or not 0 < minimum < 1:
            raise RecipeError("`languages` must be a list, and minimum lie between 0 and 1", "correct `args`")
        self.identifier = _identifier()
        unknown = sorted(set(languages) - set(self.identifier.labels))
        if unknown:
            raise RecipeError(
                f"py3langid knows no language {unknown[0]!r}", "write a code of ISO 639-1, such as en"
            )
        self.languages = frozenset(languages)
        self.minimum = minimum
        self.minimum_words = minimum_words
        self.known: dict[str, float] = {}

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.fill_null(pc.greater_equal(self.values(annotations), self.minimum), True)

    def values(self, annotations: pa.Table) -> pa.Array:
        coded = annotations["text"].combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        if len(self.known) > _REMEMBERED:
            self.known.clear()
        for text in texts:
            if text not in self.known:
                self.known[text] = self._share(text)
        found = np.array([self.known[text] for text in texts], np.float32)
        return pa.array(found, from_pandas=True).take(coded.indices)

    def _share(self, text: str) -> float:
        """How likely a text is in one of the languages; no number where it is too short to say."""
        if len(text.split()) < self.minimum_words:
            return float("nan")
        return float(sum(share for code, share in self.identifier.rank(text) if code in self.languages))


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingPackageError.of(error.name or "py3langid", "text") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
