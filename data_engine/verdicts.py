"""Verdicts: each annotation's fate under a recipe's filters, with the reason and the value measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.errors import FdeError, SpecialistError
from data_engine.recipe import FilterPart, Where
from data_engine.schema import ANNOTATIONS, VERDICTS
from data_engine.specialist import Filter

PARENT = "parent"
"""The reason given to what hangs on a dropped statement."""

_OWN = ("annotation_id", "image_id", "kind", "granularity", "source", "parent_id")
"""Columns that a judge looks at itself: for `where`, for what hangs on what, and for the verdicts."""


@dataclass
class Judge:
    """A recipe's filters, built once, over any number of annotation tables."""

    parts: Mapping[str, FilterPart]
    filters: Mapping[str, Filter]

    @property
    def image_columns(self) -> list[str]:
        """The columns of the image index that its filters look at."""
        wanted = [column for made in self.filters.values() for column in getattr(made, "image_columns", ())]
        return list(dict.fromkeys(wanted))

    @property
    def columns(self) -> list[str]:
        """The columns of annotations that it needs: all of them, unless each filter says which it looks at."""
        wanted = set(_OWN)
        for made in self.filters.values():
            wanted.update(getattr(made, "columns", ANNOTATIONS.names))
        return [name for name in ANNOTATIONS.names if name in wanted]

    def __call__(
        self,
        annotations: pa.Table,
        round_: int = 0,
        images: pa.Table | None = None,
        before: pa.Table | None = None,
        unchanged: int = 0,
    ) -> pa.Table:
        """The verdicts on the statements of whole images: one row each, in the same order.

        `images` are those images' rows with `image_columns`, where a filter asks for any. `before` are
        earlier verdicts on the same rows: what the first `unchanged` filters dropped is taken from there.

        A filter sees only what no earlier filter dropped. What hangs on a dropped statement falls with it,
        except where the filter says `cascades = False`. Raises SpecialistError when a filter's answer
        is not one True or False per row.
        """
        names = list(self.parts)
        state = _State.new(annotations.num_rows)
        if before is not None:
            state.take_over(before, names[:unchanged])
        applies: dict[str, np.ndarray] = {}
        for number, name in enumerate(names):
            made = self.filters[name]
            if number >= unchanged:
                where = self.parts[name].where
                key = where.model_dump_json()
                if key not in applies:
                    applies[key] = _applies(where, annotations)
                rows = np.flatnonzero(applies[key] & (state.dropped < 0))
                if len(rows):
                    self._drop(number, annotations, rows, images, state)
            if not getattr(made, "cascades", True):
                state.holds |= state.dropped == number
        dropped = _cascade(annotations, state.dropped, state.holds, len(names))
        reasons = pa.array([*names, PARENT], pa.string())
        by = reasons.take(pa.array(dropped, mask=dropped < 0))
        return pa.table(
            {
                "annotation_id": annotations["annotation_id"],
                "image_id": annotations["image_id"],
                "source": annotations["source"],
                "kept": pa.array(dropped < 0),
                "dropped_by": by,
                "value": pa.array(state.values, pa.float32(), mask=np.isnan(state.values)),
                "round": pa.array(np.full(annotations.num_rows, round_, np.int32)),
            },
            schema=VERDICTS,
        )

    def _drop(
        self, number: int, annotations: pa.Table, rows: np.ndarray, images: pa.Table | None, state: _State
    ) -> None:
        """Let one filter judge some rows, and write down what it drops."""
        name = list(self.parts)[number]
        made = self.filters[name]
        # Copying columns that it does not look at would take longer than most filters.
        looked_at = getattr(made, "columns", annotations.column_names)
        seen = annotations.select(list(dict.fromkeys(["image_id", *looked_at])))
        if len(rows) < annotations.num_rows:
            seen = seen.take(pa.array(rows))
        columns = getattr(made, "image_columns", ())
        if columns:
            seen = _with_images(seen, images, columns)
        keep = self._keep(name, seen)
        out = rows[~keep]
        if not len(out):
            return
        state.dropped[out] = number
        measure = getattr(made, "values", None)
        if measure is not None:
            with _failures_of(name):
                values = _plain(measure(seen)).to_numpy(zero_copy_only=False)
            state.values[out] = values[~keep]
        if getattr(made, "whole_image", False):
            _drop_images(number, annotations, out, state)

    def _keep(self, name: str, rows: pa.Table) -> np.ndarray:
        with _failures_of(name):
            kept = self.filters[name](rows)
        if isinstance(kept, pa.ChunkedArray):
            kept = _plain(kept)
        if not isinstance(kept, pa.BooleanArray) or len(kept) != rows.num_rows:
            raise SpecialistError(
                f"filters.{name} answered with {type(kept).__name__} for {rows.num_rows} rows",
                "a filter returns a pyarrow BooleanArray with one value per row",
            )
        # Null is "cannot say": a statement is dropped for a reason, never for want of one.
        return np.asarray(pc.fill_null(kept, True).to_numpy(zero_copy_only=False))


@dataclass(eq=False)
class _State:
    """Of each row the number of the filter that dropped it, or -1; what it measured; and whether what
    hangs on the row stays all the same."""

    dropped: np.ndarray
    values: np.ndarray
    holds: np.ndarray

    @classmethod
    def new(cls, count: int) -> _State:
        return cls(np.full(count, -1, np.int64), np.full(count, np.nan, np.float32), np.zeros(count, bool))

    def take_over(self, before: pa.Table, names: list[str]) -> None:
        found = pc.index_in(before["dropped_by"], pa.array(names, pa.string())).combine_chunks()
        self.dropped = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        # Not a view of the table: what later filters measure is written into it.
        values = np.array(before["value"].to_numpy(zero_copy_only=False), np.float32)
        self.values = np.where(self.dropped >= 0, values, np.float32(np.nan))


@contextmanager
def _failures_of(name: str) -> Iterator[None]:
    """What a filter raises, as one line that names it: all shards would fail alike."""
    try:
        yield
    except FdeError:
        raise
    except Exception as error:
        raise SpecialistError(
            f"filters.{name} raised {' '.join(f'{type(error).__name__}: {error}'.split())[:500]}",
            "mend the filter or its args; shards that were judged before are kept",
        ) from error


def _plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array. `combine_chunks` of a column without chunks gives an array too."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _with_images(rows: pa.Table, images: pa.Table | None, columns: tuple[str, ...]) -> pa.Table:
    if images is None:
        raise SpecialistError(
            f"a filter looks at the images' {', '.join(columns)}, which are not given", "give `images`"
        )
    at = pc.index_in(rows["image_id"], images["image_id"])
    for column in columns:
        rows = rows.append_column(f"image_{column}", images[column].take(at))
    return rows


def _drop_images(number: int, annotations: pa.Table, out: np.ndarray, state: _State) -> None:
    """Everything of the images that rows `out` are about, with the value that the image was dropped for."""
    ids = pc.dictionary_encode(_plain(annotations["image_id"])).indices.to_numpy()
    bad, first = np.unique(ids[out], return_index=True)
    falls = np.flatnonzero(np.isin(ids, bad) & (state.dropped < 0))
    state.dropped[falls] = number
    state.values[falls] = state.values[out[first[np.searchsorted(bad, ids[falls])]]]


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
    if annotations["parent_id"].null_count == annotations.num_rows:
        return dropped
    parents = pc.index_in(annotations["parent_id"], annotations["annotation_id"]).combine_chunks()
    parent = np.asarray(pc.fill_null(parents, -1).to_numpy(zero_copy_only=False))
    has_parent = parent >= 0
    while True:
        falls = has_parent & (dropped < 0) & (dropped[parent] >= 0) & ~holds[parent]
        if not falls.any():
            return dropped
        dropped[falls] = reason
