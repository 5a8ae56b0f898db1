"""A part of a data set, for measures that look at whole ones: some images, and of a source what is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from data_engine.dataset import Dataset
from data_engine.held_out import is_held_out
from data_engine.schema import ANNOTATIONS


@dataclass(frozen=True)
class Labels:
    """The statements of `sources`, of which those are left out that round `verdicts` dropped (None: none)."""

    sources: tuple[str, ...]
    verdicts: int | None = None


class Selected(Dataset):
    """The held-out images of a data set, or all others; `share` is how many are held out.

    Of the held-out ones those are left out that would be so at the share `beyond` too: another use was made of
    them. Sources are those of the data set and the names of `labels`, each standing for what it selects. Nothing
    of it is written. Memory is a shard's.
    """

    def __init__(
        self,
        dataset: Dataset,
        share: float,
        labels: Mapping[str, Labels],
        *,
        held_out: bool = True,
        beyond: float = 0.0,
    ) -> None:
        super().__init__(dataset.store, dataset.info)
        self.share = share
        self.labels = labels
        self.held_out = held_out
        self.beyond = beyond

    def sources(self) -> list[str]:
        return [*super().sources(), *self.labels]

    def image_batches(
        self, shard: str, rows: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        wanted = None if columns is None else list(dict.fromkeys([*columns, "image_id"]))
        for batch in super().image_batches(shard, rows, wanted):
            batch = batch.filter(self._chosen(batch["image_id"]))
            yield batch if columns is None else batch.select(list(columns))

    def annotations(self, source: str, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        labels = self.labels.get(source, Labels((source,)))
        names = list(ANNOTATIONS.names) if columns is None else list(columns)
        wanted = list(dict.fromkeys([*names, "annotation_id", "image_id"]))
        said = pa.concat_tables(super(Selected, self).annotations(s, shard, wanted) for s in labels.sources)
        said = said.filter(self._chosen(said["image_id"]))
        if labels.verdicts is not None:
            said = self.kept(said, labels.verdicts, shard)
        return said.select(names)

    def _chosen(self, image_ids: pa.Array | pa.ChunkedArray) -> pa.Array:
        out = is_held_out(image_ids, self.share)
        return pa.array(out & ~is_held_out(image_ids, self.beyond) if self.held_out else ~out)
