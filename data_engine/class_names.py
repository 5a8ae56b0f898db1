"""One name for each class, whatever its sources call it: `human` and `Pedestrian` may both be `person`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import RecipeError


class ClassNames:
    """`same` lists other names of a class: `{person: [human, pedestrian]}`.

    Case and blanks never matter. Raises RecipeError for a name that would be of two classes.
    """

    def __init__(self, same: Mapping[str, Sequence[str]] | None = None) -> None:
        self._written: dict[str, str] = {}
        self._class_of: dict[str, str] = {}
        for name, others in (same or {}).items():
            class_ = _normalised(name)
            self._written[class_] = name
            for other in (name, *([others] if isinstance(others, str) else others)):
                known = self._class_of.setdefault(_normalised(other), class_)
                if known != class_:
                    raise RecipeError(
                        f"`same`: {other!r} is a name of {self._written[known]!r} and of {name!r}",
                        "leave it in one of the two lists",
                    )

    def key(self, name: str) -> str:
        """What all names of a class have in common."""
        normalised = _normalised(name)
        return self._class_of.get(normalised, normalised)

    def keys(self, names: pa.ChunkedArray) -> np.ndarray:
        """`key` of each of many names, none of them null: an array of str objects."""
        # There are few different names among many rows.
        coded = pc.dictionary_encode(names.combine_chunks())
        keys = np.array([self.key(name) for name in coded.dictionary.to_pylist()], object)
        found: np.ndarray = keys[coded.indices.to_numpy(zero_copy_only=False)] if len(keys) else keys
        return found

    def written(self, name: str) -> str:
        """A name as `same` writes its class; as it is where `same` does not have it."""
        return self._written.get(self.key(name), name)


def _normalised(name: str) -> str:
    return " ".join(str(name).casefold().split())
