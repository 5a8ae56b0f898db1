"""Phrase grounding: are the things that a text names found where they are?

Judged are phrases that a source found in truth's own texts, which the specialist was given. The figure
of the literature is recall@1 on Flickr30k Entities (Plummer et al., ICCV 2015): the share of phrases
whose best-scored box reaches IoU 0.5. For a phrase that has several boxes there are two protocols
(Kamath et al., MDETR, arXiv 2104.12763): any of them will do (*any-box*; `recall`, the figure that MDETR
and GLIP compare by), or the one box around all of them is wanted (*merged-boxes*; `merged_recall`).

A box belongs to the true phrase whose span its own span overlaps most, at an IoU of characters of 0.5
or more: "red star" is the phrase "a red star", and "a red star above a cup" is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.overlap import paired_iou
from data_engine.quality.coco import check_source
from data_engine.quality.shares import Shares

_COLUMNS = ["annotation_id", "kind", "parent_id", "span", "box", "mask", "score"]


@dataclass(frozen=True)
class GroundingQuality:
    """All of 0..1, at one least IoU; 0 where there is nothing to divide by.

    `recall`: phrases whose best-scored box fits one of theirs. `merged_recall`: phrases where the box
    around all that were found fits the box around all that there are. (The protocol has one predicted
    box there; a source that names each of three cups is not to lose by it.) `box_recall`: true boxes
    that some box of their phrase fits. `precision`: boxes found that fit one of their phrase's.
    `phrases` and `boxes` count truth's, `predicted` the boxes found in truth's texts.
    """

    recall: float
    merged_recall: float
    box_recall: float
    precision: float
    phrases: int
    boxes: int
    predicted: int


@dataclass(frozen=True, eq=False)
class _Found:
    """Phrase rows: `text` is an index into truth's texts, `span` (n, 2), `box` (n, 4)."""

    text: np.ndarray
    span: np.ndarray
    box: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.text)


def grounding_quality(
    dataset: Dataset, predictions: str, truth: str, *, iou: float = 0.5
) -> GroundingQuality:
    """Judge the phrases that one source found in the texts of another, by that other's phrases.

    A box without a score counts as certain, and of equal scores the first said is the best. A phrase
    without a span, whose words are not in the text, belongs to none and is wrong. One shard lies in
    memory at a time. Raises DatasetError when a source is missing.
    """
    counts = np.zeros(7, np.int64)
    for said, judged, _ in _each_shard(dataset, predictions, truth):
        counts += _counts(said, judged, iou)
    hits, merged, reached, fitting, phrases, boxes, predicted = counts.tolist()
    return GroundingQuality(
        recall=hits / phrases if phrases else 0.0,
        merged_recall=merged / phrases if phrases else 0.0,
        box_recall=reached / boxes if boxes else 0.0,
        precision=fitting / predicted if predicted else 0.0,
        phrases=phrases,
        boxes=boxes,
        predicted=predicted,
    )


def recall_by_image(dataset: Dataset, predictions: str, truth: str, *, iou: float = 0.5) -> Shares:
    """`recall` of `grounding_quality` as parts of each image: phrases whose best box fits, and phrases.

    Raises DatasetError when a source is missing.
    """
    rows: list[tuple[str, float, float]] = []
    for said, judged, images in _each_shard(dataset, predictions, truth):
        keys, of_row = _true_phrases(judged)
        answers = _answered(said, keys)
        said_at, true_at = _equal_pairs(answers, of_row)
        fit = np.zeros(len(said))
        np.maximum.at(fit, said_at, paired_iou(said.box[said_at], judged.box[true_at]))
        best = _best(said, answers, len(keys))
        hit = (best >= 0) & (np.append(fit, 0.0)[best] >= iou)
        rows += zip(images.take(pa.array(keys[:, 0])).to_pylist(), hit.tolist(), repeat(1.0), strict=False)
    return Shares.of(rows)


def _each_shard(dataset: Dataset, predictions: str, truth: str) -> Iterator[tuple[_Found, _Found, pa.Array]]:
    """Of each shard the phrases found in truth's texts, truth's own, and the image_id of each text."""
    check_source(dataset, predictions)
    check_source(dataset, truth)
    for shard in dataset.shards:
        right = dataset.annotations(truth, shard, [*_COLUMNS, "image_id"])
        texts = right.filter(pc.equal(right["kind"], "text"))
        ids = texts["annotation_id"].combine_chunks()
        judged = _phrases(right, ids)
        said = _phrases(dataset.annotations(predictions, shard, _COLUMNS), ids)
        spanned = judged.span[:, 0] >= 0
        judged = _Found(
            judged.text[spanned], judged.span[spanned], judged.box[spanned], judged.score[spanned]
        )
        yield said, judged, texts["image_id"].combine_chunks()


def _true_phrases(judged: _Found) -> tuple[np.ndarray, np.ndarray]:
    """The different phrases (text, start, end), and which of them each row is a box of."""
    keys, of_row = np.unique(
        np.column_stack([judged.text, judged.span]).astype(np.int64), axis=0, return_inverse=True
    )
    return keys, of_row.reshape(-1)


def _best(said: _Found, answers: np.ndarray, count: int) -> np.ndarray:
    """For each of `count` true phrases the row of its best-scored box, -1 where it has none."""
    answering = np.flatnonzero(answers >= 0)
    best = np.full(count, -1)
    # Of repeated indices the last assignment stays: the highest score, and of equal ones the first said.
    order = answering[np.lexsort((-answering, said.score[answering]))]
    best[answers[order]] = order
    return best


def _counts(said: _Found, judged: _Found, iou: float) -> tuple[int, int, int, int, int, int, int]:
    """Phrases hit, phrases hit when merged, true boxes reached, boxes that fit; and how many of each."""
    keys, of_row = _true_phrases(judged)
    answers = _answered(said, keys)

    said_at, true_at = _equal_pairs(answers, of_row)
    overlaps = paired_iou(said.box[said_at], judged.box[true_at])
    fit, reached = np.zeros(len(said)), np.zeros(len(judged))
    np.maximum.at(fit, said_at, overlaps)
    np.maximum.at(reached, true_at, overlaps)

    best = _best(said, answers, len(keys))
    best = best[best >= 0]

    answering = np.flatnonzero(answers >= 0)
    around_said = _around(said.box[answering], answers[answering], len(keys))
    around_true = _around(judged.box, of_row, len(keys))
    merged = paired_iou(around_said, around_true) >= iou
    return (
        int((fit[best] >= iou).sum()),
        int(merged.sum()),
        int((reached >= iou).sum()),
        int((fit >= iou).sum()),
        len(keys),
        len(judged),
        len(said),
    )


def _phrases(table: pa.Table, texts: pa.Array) -> _Found:
    """The phrases with a box that hang on one of the texts."""
    wanted = pc.and_(pc.equal(table["kind"], "phrase"), pc.is_valid(table["box"]))
    rows = table.filter(pc.and_(wanted, pc.is_null(table["mask"])))
    rows = rows.filter(pc.is_in(rows["parent_id"], value_set=texts))
    return _Found(
        pc.index_in(rows["parent_id"], value_set=texts).combine_chunks().to_numpy(zero_copy_only=False),
        _lists(rows["span"], 2),
        _lists(rows["box"], 4),
        pc.fill_null(rows["score"], np.inf).combine_chunks().to_numpy(zero_copy_only=False),
    )


def _lists(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """(n, width) float64; -1 where a row has none."""
    whole = column.combine_chunks()
    values = np.full((len(whole), width), -1.0)
    # `flatten` leaves the missing out.
    values[whole.is_valid().to_numpy(zero_copy_only=False)] = (
        whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    )
    return values


def _answered(said: _Found, keys: np.ndarray) -> np.ndarray:
    """For each phrase found the true one that it is: a row of `keys` (text, start, end), or -1."""
    said_at, key_at = _equal_pairs(said.text, keys[:, 0])
    (start, end), (true_start, true_end) = said.span[said_at].T, keys[key_at, 1:].T
    common = np.minimum(end, true_end) - np.maximum(start, true_start)
    whole = np.maximum(end, true_end) - np.minimum(start, true_start)
    overlap = np.where(common > 0, common / np.maximum(whole, 1), 0.0)
    order = np.argsort(overlap, kind="stable")
    order = order[overlap[order] >= 0.5]
    answers = np.full(len(said), -1)
    answers[said_at[order]] = key_at[order]
    return answers


def _equal_pairs(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs of equal numbers, of 0 and above."""
    order = np.argsort(right, kind="stable")
    first = np.searchsorted(right[order], left, "left")
    counts = np.where(left >= 0, np.searchsorted(right[order], left, "right") - first, 0)
    at_left = np.repeat(np.arange(len(left)), counts)
    within = np.arange(len(at_left)) - np.repeat(np.cumsum(counts) - counts, counts)
    return at_left, order[np.repeat(first, counts) + within]


def _around(boxes: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """The box around all boxes of each owner, (count, 4); one without area where there are none."""
    around = np.tile([np.inf, np.inf, -np.inf, -np.inf], (count, 1))
    np.minimum.at(around[:, :2], owners, boxes[:, :2])
    np.maximum.at(around[:, 2:], owners, boxes[:, 2:])
    around[np.isinf(around).any(axis=1)] = 0
    return around
