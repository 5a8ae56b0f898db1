"""Texts about an image judged by what is true of it, not by how truth happens to put it.

Who can tell whether a noun phrase is true of an image is the caller's: for drawn scenes the words of
their world (data_engine.scenes.attributes), with truth's descriptions of the things.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.quality.coco import check_source
from data_engine.quality.shares import Shares
from data_engine.quality.text import normalised

Judge = Callable[[str, Sequence[str]], Sequence[bool]]
"""A text, and truth's descriptions of all things in the image, to the truth of each noun phrase."""

_COLUMNS = ["annotation_id", "image_id", "kind", "granularity", "text", "parent_id", "mask"]


@dataclass(frozen=True)
class CaptionQuality:
    """Shares of the texts that were said; 0 where none was.

    `true`: has a noun phrase, and all that it has are true. `telling`: has a noun phrase at all.
    `same`: is one of truth's own texts of that granularity, but for case and blanks; where truth has none,
    an empty one is. `phrases_true` is
    a share of all noun phrases, of which there are `phrases`. `images` are those of which truth has such
    a text, `told` those of them of which the source has one.
    """

    true: float
    telling: float
    same: float
    phrases_true: float
    texts: int
    phrases: int
    told: int
    images: int


@dataclass(frozen=True)
class Agreement:
    """The share of `texts` that are truth's own, but for case and blanks; 0 where there are none."""

    same: float
    texts: int


def caption_quality(
    dataset: Dataset, predictions: str, truth: str, judge: Judge, *, granularity: str = "brief"
) -> CaptionQuality:
    """Judge one source's texts of a granularity about whole images by another's.

    The descriptions that `judge` is given are truth's regions of granularity `brief`. One shard lies in
    memory at a time. Raises DatasetError when a source is missing.
    """
    texts = phrases = true = telling = same = phrases_true = told = images = 0
    for judged in _judged(dataset, predictions, truth, judge, granularity):
        images += judged.wanted
        told += judged.wanted and bool(judged.texts)
        texts += len(judged.texts)
        same += judged.same
        for verdicts in judged.texts:
            phrases += len(verdicts)
            phrases_true += sum(verdicts)
            telling += bool(verdicts)
            true += bool(verdicts) and all(verdicts)
    return CaptionQuality(
        true=true / texts if texts else 0.0,
        telling=telling / texts if texts else 0.0,
        same=same / texts if texts else 0.0,
        phrases_true=phrases_true / phrases if phrases else 0.0,
        texts=texts,
        phrases=phrases,
        told=told,
        images=images,
    )


def captions_by_image(
    dataset: Dataset, predictions: str, truth: str, judge: Judge, *, granularity: str = "brief"
) -> tuple[Shares, Shares]:
    """Two measures: captions of which all is true, and noun phrases that are true.

    The first is a share of the images of which truth has such a text; an image without one counts as wrong,
    and of several texts each counts its part. The second is a share of what was said.
    Raises DatasetError when a source is missing.
    """
    right: list[tuple[str, float, float]] = []
    phrases: list[tuple[str, float, float]] = []
    for judged in _judged(dataset, predictions, truth, judge, granularity):
        true = sum(bool(verdicts) and all(verdicts) for verdicts in judged.texts)
        if judged.wanted:
            right.append((judged.image_id, true / max(1, len(judged.texts)), 1.0))
        said = sum(map(len, judged.texts))
        phrases.append((judged.image_id, float(sum(map(sum, judged.texts))), said))
    return Shares.of(right), Shares.of(phrases)


@dataclass(frozen=True)
class _Judged:
    """An image: whether truth has a text of it (`wanted`), for each text of the other source whether each
    of its noun phrases is true, and how many of the texts are truth's own."""

    image_id: str
    wanted: bool
    texts: list[Sequence[bool]]
    same: int


def _judged(
    dataset: Dataset, predictions: str, truth: str, judge: Judge, granularity: str
) -> Iterator[_Judged]:
    check_source(dataset, predictions)
    check_source(dataset, truth)
    for shard in dataset.shards:
        theirs = texts_by_image(dataset, truth, shard, "text", granularity)
        things = texts_by_image(dataset, truth, shard, "region", "brief")
        ours = texts_by_image(dataset, predictions, shard, "text", granularity)
        for image_id in dict.fromkeys([*theirs, *ours]):
            wordings = {normalised(text) for text in theirs.get(image_id, [""])}
            said = ours.get(image_id, [])
            yield _Judged(
                image_id,
                image_id in theirs,
                [judge(text, things.get(image_id, ())) for text in said],
                sum(normalised(text) in wordings for text in said),
            )


def region_agreement(dataset: Dataset, predictions: str, truth: str, granularity: str) -> Agreement:
    """What one source says of another's regions (its rows have them as parent), held against what that
    other says of them at the same granularity. Regions of which it says nothing there are not judged.

    One shard lies in memory at a time. Raises DatasetError when a source is missing.
    """
    check_source(dataset, predictions)
    check_source(dataset, truth)
    texts = same = 0
    for shard in dataset.shards:
        known: dict[str, set[str]] = defaultdict(set)
        right = _said(dataset.annotations(truth, shard, _COLUMNS), "region", granularity)
        for row in right.to_pylist():
            known[row["parent_id"] or row["annotation_id"]].add(normalised(row["text"]))
        said = _said(dataset.annotations(predictions, shard, _COLUMNS), "region", granularity)
        for row in said.to_pylist():
            if row["parent_id"] in known:
                texts += 1
                same += normalised(row["text"]) in known[row["parent_id"]]
    return Agreement(same / texts if texts else 0.0, texts)


def texts_by_image(
    dataset: Dataset, source: str, shard: str, kind: str, granularity: str
) -> dict[str, list[str]]:
    """What a source says in one shard of each image, at one granularity: texts in their order by image id."""
    rows = _said(dataset.annotations(source, shard, _COLUMNS), kind, granularity)
    found: dict[str, list[str]] = {}
    for image_id, text in zip(rows["image_id"].to_pylist(), rows["text"].to_pylist(), strict=True):
        found.setdefault(image_id, []).append(text)
    return found


def _said(table: pa.Table, kind: str, granularity: str) -> pa.Table:
    wanted = pc.and_(
        pc.equal(table["kind"], kind), pc.fill_null(pc.equal(table["granularity"], granularity), False)
    )
    rows = table.filter(pc.and_(wanted, pc.and_(pc.is_valid(table["text"]), pc.is_null(table["mask"]))))
    return rows.select(["annotation_id", "image_id", "text", "parent_id"])
