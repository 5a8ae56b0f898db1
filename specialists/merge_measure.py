"""Held-out images with their truth, and what a merge of them is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.held_out import is_held_out
from data_engine.quality.coco import check_source
from specialists.merge import merge_page
from specialists.merge_rows import Page, Row, pages
from specialists.merge_settings import MergeSettings, key_of
from specialists.merge_truth import Counts, Worth, matches, things_of, worth_of


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """One image: what is merged, and what is true."""

    said: Page
    truth: list[Row]

    def page(self) -> Page:
        """A page on which nothing is merged yet."""
        return Page(self.said.rows, self.said.children)


def held_out_images(
    dataset: Dataset, truth: str, settings: MergeSettings, held_out: float, verdicts: int | None, most: int
) -> Iterator[HeldOut]:
    """The first `most` of the share of images that is held out. Raises DatasetError for a source that is missing."""
    for source in (truth, *_wanted(settings)):
        check_source(dataset, source)
    right = MergeSettings([truth], ["-"], [])
    looked_at = _ids(dataset, held_out, most, inside=True)
    for shard in dataset.shards:
        about = _said(dataset, shard, settings, verdicts, looked_at)
        true = dataset.annotations(truth, shard)
        true = true.filter(pc.is_in(true["image_id"], value_set=looked_at))
        rows = {image_id: page.rows for image_id, page in pages(true, right).items()}
        for image_id in sorted({*about, *rows}):
            yield HeldOut(about.get(image_id, Page([], {})), rows.get(image_id, []))


def taught_pages(
    dataset: Dataset, settings: MergeSettings, untaught: float, verdicts: int | None, most: int
) -> Iterator[Page]:
    """What is said of the first `most` images beyond the share that taught nothing."""
    looked_at = _ids(dataset, untaught, most, inside=False)
    for shard in dataset.shards:
        found = _said(dataset, shard, settings, verdicts, looked_at)
        yield from (found[image_id] for image_id in sorted(found))


def _wanted(settings: MergeSettings) -> list[str]:
    judges = (source for source in (settings.doubt, settings.scorer) if source)
    return [*settings.originals, *settings.student, *judges]


def _ids(dataset: Dataset, share: float, most: int, *, inside: bool) -> pa.Array:
    """The first `most` image ids of a share (`data_engine.held_out`), or of what is beyond it."""
    found = [
        image_id
        for shard in dataset.shards
        for batch in dataset.image_batches(shard, 4096, ["image_id"])
        for image_id in batch["image_id"]
        .filter(pa.array(is_held_out(batch["image_id"], share) == inside))
        .to_pylist()
    ]
    return pa.array(sorted(found)[:most], pa.string())


def _said(
    dataset: Dataset, shard: str, settings: MergeSettings, verdicts: int | None, looked_at: pa.Array
) -> dict[str, Page]:
    human = [source for source in settings.human if source in dataset.sources()]
    said = pa.concat_tables([dataset.annotations(source, shard) for source in (*_wanted(settings), *human)])
    if verdicts is not None:
        said = dataset.kept(said, verdicts, shard)
    return pages(said.filter(pc.is_in(said["image_id"], value_set=looked_at)), settings)


def truths_of(images: Sequence[HeldOut]) -> dict[str, int]:
    found: dict[str, int] = {}
    for image in images:
        for key, rows in things_of(image.truth).items():
            found[key] = found.get(key, 0) + len(rows)
    return found


def measure(
    images: Sequence[HeldOut], settings: MergeSettings, worth: Worth, *, merged: bool = True
) -> dict[str, float]:
    """By key what a merge is worth; with `merged` False, what the originals are as they stand."""
    counts: dict[str, Counts] = {}
    texts: dict[str, list[float]] = {}
    for image in images:
        page = image.page()
        if merged:
            merge_page(page, settings)
        statements = [made.row for made in page.made] if merged else page.of("human", "original")
        said: dict[str, list[Any]] = {}
        for one in statements:
            hangs = one.kind == "region" and one.parent is not None
            if one.mask is None and not hangs:
                said.setdefault(key_of(one.kind, one.granularity), []).append(one)
        true = things_of(image.truth)
        told = [row.text or "" for row in image.truth if row.kind == "region" and row.granularity == "brief"]
        for key in {*said, *true}:
            kind = key.split("/")[0]
            ours, rows = said.get(key, []), true.get(key, [])
            if kind == "text":
                wordings = [row.text or "" for row in rows]
                texts.setdefault(key, []).extend(
                    worth_of(key, worth)(one.text, wordings, told) for one in ours
                )
                continue
            count = counts.setdefault(key, Counts())
            count.said += len(ours)
            count.truths += len(rows)
            count.right += matches(
                kind, [one.text or "" for one in ours], [one.box for one in ours], rows, settings.names
            )
    # Of what truth has nothing of, nothing is known.
    f1 = {key: count.f1 for key, count in counts.items() if count.truths}
    known = truths_of(images)
    return {**f1, **{key: float(np.mean(values)) for key, values in texts.items() if values and key in known}}
