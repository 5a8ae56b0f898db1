"""Verdicts: each annotation's fate under a recipe's filters, with the reason and the value measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import SpecialistError
from data_engine.recipe import FilterPart, Where
from data_engine.schema import VERDICTS
from data_engine.specialist import Filter

PARENT = "parent"
"""The reason given to what hangs on a dropped statement."""


@dataclass
class Judge:
    """A recipe's filters, built once, over any number of annotation tables."""

    parts: Mapping[str, FilterPart]
    filters: Mapping[str, Filter]

    def __call__(self, annotations: pa.Table, round_: int = 0) -> pa.Table:
        """The verdicts on the statements of whole images: one row each, in the same order.

        A filter sees only what no earlier filter dropped. What hangs on a dropped statement falls with it,
        except where the filter says `cascades = False`. Raises SpecialistError when a filter's answer
        is not one True or False per row.
        """
        dropped = np.full(annotations.num_rows, -1, np.int64)
        holds = np.zeros(annotations.num_rows, bool)
        values = np.full(annotations.num_rows, np.nan, np.float32)
        names = list(self.parts)
        for number, name in enumerate(names):
            rows = np.flatnonzero(_applies(self.parts[name].where, annotations) & (dropped < 0))
            if not len(rows):
                continue
            seen = annotations.take(pa.array(rows))
            keep = self._keep(name, seen)
            out = rows[~keep]
            dropped[out] = number
            holds[out] = not getattr(self.filters[name], "cascades", True)
            measure = getattr(self.filters[name], "values", None)
            if measure is not None:
                values[out] = measure(seen).to_numpy(zero_copy_only=False)[~keep]
        dropped = _cascade(annotations, dropped, holds, len(names))
        reasons = pa.array([*names, PARENT], pa.string())
        by = reasons.take(pa.array(dropped, mask=dropped < 0))
        return pa.table(
            {
                "annotation_id": annotations["annotation_id"],
                "image_id": annotations["image_id"],
                "source": annotations["source"],
                "kept": pa.array(dropped < 0),
                "dropped_by": by,
                "value": pa.array(values, pa.float32(), mask=np.isnan(values)),
                "round": pa.array(np.full(annotations.num_rows, round_, np.int32)),
            },
            schema=VERDICTS,
        )

    def _keep(self, name: str, rows: pa.Table) -> np.ndarray:
        kept = self.filters[name](rows)
        if isinstance(kept, pa.ChunkedArray):
            kept = kept.combine_chunks()
        if not isinstance(kept, pa.BooleanArray) or len(kept) != rows.num_rows:
            raise SpecialistError(
                f"filters.{name} answered with {type(kept).__name__} for {rows.num_rows} rows",
                "a filter returns a pyarrow BooleanArray with one value per row",
            )
        # Null is "cannot say": a statement is dropped for a reason, never for want of one.
        return np.asarray(pc.fill_null(kept, True).to_numpy(zero_copy_only=False))


def _applies(where: Where, annotations: pa.Table) -> np.ndarray:
    mask = np.ones(annotations.num_rows, bool)
    for column in ("kind", "granularity", "source"):
        wanted = getattr(where, column)
        if wanted:
            mask &= pc.is_in(annotations[column], pa.array(wanted, pa.string())).to_numpy()
    return mask


def _cascade(annotations: pa.Table, dropped: np.ndarray, holds: np.ndarray, reason: int) -> np.ndarray:
    """What hangs on a dropped statement is dropped too, however deep it hangs, unless the statement
    still `holds` it."""
    parents = pc.index_in(annotations["parent_id"], annotations["annotation_id"]).combine_chunks()
    parent = np.asarray(pc.fill_null(parents, -1).to_numpy(zero_copy_only=False))
    has_parent = parent >= 0
    while True:
        falls = has_parent & (dropped < 0) & (dropped[parent] >= 0) & ~holds[parent]
        if not falls.any():
            return dropped
        dropped[falls] = reason
