"""What labels say of places, judged by what is true there and not by how truth puts it.

A set of labels has captions of its own, so its phrases cannot be held against those of truth's captions
(data_engine.quality.grounding does that for a model that is asked about truth's). Here each is held against
the things that its words fit. Who can tell that is the caller's: for drawn scenes the words of their worlds
(data_engine.scenes.attributes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.quality.coco import check_source
from data_engine.quality.shares import Shares

Fitting = Callable[[str, Sequence[str]], Sequence[tuple[tuple[int, int], Sequence[int]]]]
"""A text, and truth's descriptions of all things in the image, to the span of each noun phrase and the
places of the descriptions that it fits."""

_COLUMNS = [
    "annotation_id", "image_id", "kind", "granularity", "text", "parent_id", "span", "box", "mask", "score",
]  # fmt: skip


def phrases_by_image(
    dataset: Dataset,
    labels: str,
    truth: str,
    fitting: Fitting,
    *,
    granularities: Sequence[str] = ("brief", "detailed", "more_detailed"),
    iou: float = 0.5,
) -> Shares:
    """Recall@1 of a source's own captions: noun phrases whose best-scored box is one of a thing that they fit.

    A phrase counts as wrong that is not true of the image, that has no box, or that has its box elsewhere.
    A box belongs to the noun phrase that its own span overlaps most, at an IoU of characters of 0.5 or more.
    Things are truth's regions of granularity `brief`. Raises DatasetError when a source is missing.
    """
    return Shares.of(
        (
            image.image_id,
            float(sum(_grounded(span, fits, rows, image.boxes, iou) for span, fits in named)),
            len(named),
        )
        for image in _images(dataset, labels, truth)
        for text, rows in image.captions(granularities)
        if (named := fitting(text, image.descriptions))
    )


def descriptions_by_image(
    dataset: Dataset, labels: str, truth: str, fitting: Fitting, *, iou: float = 0.5
) -> Shares:
    """Further texts of regions (granularity `brief`) of which all noun phrases fit one thing that is there.

    A share of the texts that were said. Raises DatasetError when a source is missing.
    """
    rows: list[tuple[str, float, float]] = []
    for image in _images(dataset, labels, truth):
        for row in image.said:
            if row["kind"] != "region" or row["granularity"] != "brief" or not row["box"] or not row["text"]:
                continue
            named = fitting(row["text"], image.descriptions)
            shared = set.intersection(*(set(fits) for _, fits in named)) if named else set()
            rows.append((image.image_id, float(_there(row["box"], shared, image.boxes, iou)), 1.0))
    return Shares.of(rows)


@dataclass(frozen=True, eq=False)
class _Image:
    """Truth's descriptions with their boxes, (n, 4), and what the other source says of the image."""

    image_id: str
    descriptions: list[str]
    boxes: np.ndarray
    said: list[dict[str, Any]]

    def captions(self, granularities: Sequence[str]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Each caption with the phrases with a box and span that hang on it."""
        phrases: dict[str, list[dict[str, Any]]] = {}
        for row in self.said:
            if row["kind"] == "phrase" and row["box"] and row["span"]:
                phrases.setdefault(row["parent_id"], []).append(row)
        for row in self.said:
            if row["kind"] == "text" and row["granularity"] in granularities and row["text"]:
                yield row["text"], phrases.get(row["annotation_id"], [])


def _images(dataset: Dataset, labels: str, truth: str) -> Iterator[_Image]:
    check_source(dataset, labels)
    check_source(dataset, truth)
    for shard in dataset.shards:
        said = _by_image(dataset.annotations(labels, shard, _COLUMNS))
        right = dataset.annotations(truth, shard, _COLUMNS)
        described = pc.fill_null(pc.equal(right["granularity"], "brief"), False)
        things = _by_image(right.filter(pc.and_(pc.equal(right["kind"], "region"), described)))
        for image_id, rows in said.items():
            known = [row for row in things.get(image_id, []) if row["text"] and row["box"]]
            boxes = np.array([row["box"] for row in known], np.float64).reshape(-1, 4)
            yield _Image(image_id, [row["text"] for row in known], boxes, rows)


def _by_image(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    rows = table.filter(pc.is_null(table["mask"])).drop_columns(["mask"])
    for row in rows.to_pylist():
        found.setdefault(row["image_id"], []).append(row)
    return found


def _grounded(
    span: tuple[int, int], fits: Sequence[int], rows: Sequence[dict[str, Any]], boxes: np.ndarray, iou: float
) -> bool:
    """Whether the best-scored of a noun phrase's boxes is one of a thing that it fits."""
    mine = [row for row in rows if _overlap(span, row["span"]) >= 0.5]
    if not mine or not fits:
        return False
    best = max(mine, key=lambda row: np.inf if row["score"] is None else row["score"])
    return _there(best["box"], fits, boxes, iou)


def _overlap(a: Sequence[int], b: Sequence[int]) -> float:
    shared = min(a[1], b[1]) - max(a[0], b[0])
    return max(0.0, shared / max(1, max(a[1], b[1]) - min(a[0], b[0])))


def _there(box: Sequence[float], places: Sequence[int] | set[int], boxes: np.ndarray, iou: float) -> bool:
    """Whether a box is that of one of some things."""
    some = boxes[list(places)]
    one = np.array(box, np.float64)
    shared = np.clip(np.minimum(some[:, 2:], one[2:]) - np.maximum(some[:, :2], one[:2]), 0, None).prod(
        axis=1
    )
    union = (some[:, 2:] - some[:, :2]).prod(axis=1) + (one[2:] - one[:2]).prod() - shared
    return bool((shared >= iou * union).any())
