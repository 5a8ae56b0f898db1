"""Drop statements that their own source is not sure of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.class_names import ClassNames
from data_engine.errors import RecipeError

VERSION = 2


class MinimumScore:
    """Keeps rows with `score >= minimum`; a row without a score (people do not score) is kept.

    - `by_source` and `by_class`: other minima for some sources, or some texts (in whatever case); the class
      comes first. Detectors differ in what a score means, and rare classes are scored lower.

    A score that is no number is dropped. Raises RecipeError.
    """

    columns = ("text", "score", "source")

    def __init__(
        self,
        minimum: float,
        by_source: Mapping[str, float] | None = None,
        by_class: Mapping[str, float] | None = None,
    ) -> None:
        self.minimum = minimum
        self.by_source = dict(by_source or {})
        names = ClassNames()
        self.by_class = {names.key(name): value for name, value in (by_class or {}).items()}
        if len(self.by_class) != len(by_class or {}):
            raise RecipeError("`by_class` has a class twice, in other case", "leave one of them")

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        least = self._least(annotations)
        return pc.fill_null(pc.greater_equal(annotations["score"], least), True).combine_chunks()

    def values(self, annotations: pa.Table) -> pa.Array:
        return annotations["score"].combine_chunks()

    def _least(self, annotations: pa.Table) -> pa.Array | pa.Scalar:
        if not self.by_source and not self.by_class:
            # As scores are stored: a score of 0.7 is not below 0.7.
            return pa.scalar(self.minimum, pa.float32())
        least = np.full(annotations.num_rows, self.minimum)
        for name, value in self.by_source.items():
            least[pc.equal(annotations["source"], name).to_numpy()] = value
        if self.by_class:
            said = annotations["text"].is_valid()
            keys = pa.array(ClassNames().keys(annotations["text"].filter(said)), pa.string())
            rows = np.flatnonzero(said.to_numpy())
            for name, value in self.by_class.items():
                least[rows[pc.equal(keys, name).to_numpy(zero_copy_only=False)]] = value
        return pa.array(least, pa.float32())
