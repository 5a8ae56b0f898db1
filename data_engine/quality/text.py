"""Lines of text read in images, judged by those that truth has: is each there, and is it right?

A line is found where its quad (its box, where one side has no quad) overlaps truth's at IoU 0.5 or
more, the rule of ICDAR's incidental scene text challenge (Karatzas et al., ICDAR 2015). Then texts are
compared three ways: not at all (`located`), as they are (`exact`), and after normalisation
(`normalised`: Unicode NFKC, case-folded, white space as single blanks).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.quality.coco import check_source
from data_engine.quality.detection import scores_of
from data_engine.quality.shares import Shares

_COLUMNS = ["image_id", "kind", "granularity", "text", "parent_id", "box", "quad", "score"]


@dataclass(frozen=True)
class LineScores:
    """All of 0..1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class TextQuality:
    """Lines found, lines with the very text, and with the text after normalisation; and how many there are."""

    located: LineScores
    exact: LineScores
    normalised: LineScores
    truth: int
    predicted: int


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    image_id: str
    text: str
    corners: np.ndarray
    """(4, 2), clockwise as seen, in pixels."""


def text_quality(
    dataset: Dataset, predictions: str, truth: str, *, threshold: float = 0.0, iou: float = 0.5
) -> TextQuality:
    """Judge the text lines (regions of granularity `ocr`) of one source by those of another.

    Lines with a score below `threshold` are left out; one without a score counts. One shard lies in
    memory at a time. Raises DatasetError when a source is missing.
    """
    matched = dict.fromkeys(_COMPARED, 0)
    found = judged = 0
    for lines in _compared(dataset, predictions, truth, threshold, iou):
        found += lines.found
        judged += lines.judged
        for name, count in lines.matched.items():
            matched[name] += count
    scores = {name: LineScores(**scores_of(count, found, judged)) for name, count in matched.items()}
    return TextQuality(**scores, truth=judged, predicted=found)


def exact_by_image(
    dataset: Dataset, predictions: str, truth: str, *, threshold: float = 0.0, iou: float = 0.5
) -> Shares:
    """F1 of lines with the very text, as parts of each image. Raises DatasetError when a source is missing."""
    return Shares.of(
        (lines.image_id, 2.0 * lines.matched["exact"], lines.found + lines.judged)
        for lines in _compared(dataset, predictions, truth, threshold, iou)
    )


@dataclass(frozen=True)
class _Compared:
    """Of an image the lines found, those that truth has, and by comparison how many match."""

    image_id: str
    found: int
    judged: int
    matched: dict[str, int]


def _compared(
    dataset: Dataset, predictions: str, truth: str, threshold: float, iou: float
) -> Iterator[_Compared]:
    check_source(dataset, predictions)
    check_source(dataset, truth)
    for shard in dataset.shards:
        said = _lines(dataset.annotations(predictions, shard, _COLUMNS), threshold)
        right = _lines(dataset.annotations(truth, shard, _COLUMNS), 0.0)
        for image_id in dict.fromkeys([*said, *right]):
            ours, theirs = said.get(image_id, []), right.get(image_id, [])
            matched = dict.fromkeys(_COMPARED, 0)
            if ours and theirs:
                overlap = _overlaps(ours, theirs)
                for name, form in _COMPARED.items():
                    same = np.array([[form(a.text) == form(b.text) for b in theirs] for a in ours])
                    matched[name] = _pairs(np.where(same, overlap, 0.0), iou)
            yield _Compared(image_id, len(ours), len(theirs), matched)


def normalised(text: str) -> str:
    """NFKC, case-folded, white space as single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


_COMPARED: Mapping[str, Callable[[str], str]] = {
    "located": lambda text: "",
    "exact": lambda text: text,
    "normalised": normalised,
}
"""How texts are compared: what of them must be equal."""


def quad_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two convex quads, (4, 2) each, whichever way round they go."""
    a, b = _clockwise(a), _clockwise(b)
    shared = _area(_clipped(a, b))
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def _lines(table: pa.Table, threshold: float) -> dict[str, list[_Line]]:
    wanted = pc.and_(
        pc.equal(table["kind"], "region"), pc.fill_null(pc.equal(table["granularity"], "ocr"), False)
    )
    sure = pc.fill_null(pc.greater_equal(table["score"], threshold), True)
    stands = pc.and_(pc.is_null(table["parent_id"]), pc.is_valid(table["text"]))
    rows = table.filter(pc.and_(pc.and_(wanted, sure), stands))
    lines = sorted(_each_line(rows), key=lambda line: line.image_id)
    return {image_id: list(group) for image_id, group in groupby(lines, key=lambda line: line.image_id)}


def _each_line(rows: pa.Table) -> Iterator[_Line]:
    row: dict[str, Any]
    for row in rows.select(["image_id", "text", "box", "quad"]).to_pylist():
        quad = row["quad"]
        if quad is None:
            if row["box"] is None:
                continue
            x0, y0, x1, y1 = row["box"]
            quad = [x0, y0, x1, y0, x1, y1, x0, y1]
        yield _Line(row["image_id"], row["text"], np.array(quad, np.float64).reshape(4, 2))


def _overlaps(ours: list[_Line], theirs: list[_Line]) -> np.ndarray:
    """IoU of every pair, (ours, theirs); only where the bounds meet is it worked out."""
    a, b = _bounds(ours)[:, None], _bounds(theirs)[None]
    meet = ((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(axis=2)
    overlap = np.zeros(meet.shape)
    for i, j in np.argwhere(meet):
        overlap[i, j] = quad_iou(ours[i].corners, theirs[j].corners)
    return overlap


def _bounds(lines: list[_Line]) -> np.ndarray:
    corners = np.stack([line.corners for line in lines])
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _pairs(overlap: np.ndarray, least: float) -> int:
    """How many pairs one-to-one matching gives, the largest overlap first."""
    left = overlap.copy()
    count = 0
    while left.size:
        i, j = np.unravel_index(left.argmax(), left.shape)
        if left[i, j] < least:
            break
        count += 1
        left[i, :] = left[:, j] = -1.0
    return count


def _area(polygon: np.ndarray) -> float:
    """The shoelace formula; positive for a polygon that goes clockwise as seen (y points down)."""
    if len(polygon) < 3:
        return 0.0
    x, y = polygon[:, 0], polygon[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _clockwise(polygon: np.ndarray) -> np.ndarray:
    return polygon if _area(polygon) >= 0 else polygon[::-1]


def _clipped(subject: np.ndarray, window: np.ndarray) -> np.ndarray:
    """What of a convex polygon lies in another (Sutherland and Hodgman, 1974); both clockwise."""
    inside = subject
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        if not len(inside):
            break
        edge = end - start
        # Positive on the inner side of the edge.
        side = edge[0] * (inside[:, 1] - start[1]) - edge[1] * (inside[:, 0] - start[0])
        points = []
        for point, next_point, here, there in zip(
            inside, np.roll(inside, -1, axis=0), side, np.roll(side, -1), strict=True
        ):
            if here >= 0:
                points.append(point)
            if (here > 0 > there) or (here < 0 < there):
                points.append(point + (next_point - point) * (here / (here - there)))
        inside = np.array(points).reshape(-1, 2)
    return inside
