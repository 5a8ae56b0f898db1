"""Quality of phrase grounding over data sets on disk; the reference is the definition, written in loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError
from data_engine.quality.grounding import GroundingQuality, grounding_quality
from tests.test_quality_detection import image_id, make_dataset

TEXT = "a cup and two dogs near a tree"
CUP, DOGS, TREE = (0, 5), (10, 18), (24, 30)
SPANS = (CUP, DOGS, TREE)

Box = tuple[float, float, float, float]
Said = tuple[tuple[int, int] | None, Box, float | None]
"""A span of the text, a box and its score."""


def true_text() -> Annotation:
    return Annotation("text", TEXT, "brief")


def phrases(parent: Annotation | str, said: Sequence[Said]) -> list[Annotation]:
    return [
        Annotation(
            "phrase",
            TEXT if span is None else TEXT[slice(*span)],
            parent=parent,
            span=span,
            box=box,
            score=score,
        )
        for span, box, score in said
    ]


def truth_of(said: Sequence[Said]) -> list[Annotation]:
    text = true_text()
    found = [text]
    for phrase in phrases(text, said):
        mask = {"size": [200, 200], "counts": "PPXl0"}
        found += [phrase, Annotation("phrase", parent=phrase, box=phrase.box, mask=mask)]
    return found


def text_id(number: int, source: str = "human") -> str:
    """The annotation_id that an image's text has in a data set."""
    rows = AnnotationRows(source)
    rows.add(image_id(number), [true_text()])
    return str(rows.table()["annotation_id"][0].as_py())


def judged(folder: Path, truth: Sequence[Sequence[Said]], said: Sequence[Sequence[Said]]) -> GroundingQuality:
    dataset = dataset_of(folder, truth, said)
    return grounding_quality(dataset, "grounder", "human")


def dataset_of(folder: Path, truth: Sequence[Sequence[Said]], said: Sequence[Sequence[Said]]) -> Dataset:
    sources = {
        "human": [truth_of(some) for some in truth],
        "grounder": [phrases(text_id(n), some) for n, some in enumerate(said)],
    }
    return make_dataset(folder, sources, len(truth))


def square(x: float, y: float, side: float = 50) -> Box:
    return (x, y, x + side, y + side)


A, B, C, FAR = square(0, 0), square(100, 0), square(0, 100), square(150, 150)

TRUTH: list[list[Said]] = [
    [(CUP, A, None), (DOGS, B, None), (DOGS, C, None)],
    [(CUP, B, None)],
    [],
    [(TREE, C, None), (DOGS, A, None), (DOGS, B, None), (DOGS, C, None)],
    [(CUP, C, None)],
]


def test_phrases_equal_to_the_truth_are_perfect(tmp_path: Path) -> None:
    quality = judged(tmp_path, TRUTH, TRUTH)
    assert quality == GroundingQuality(1, 1, 1, 1, phrases=6, boxes=9, predicted=9)
    assert grounding_quality(Dataset.open(str(tmp_path)), "human", "human") == quality


def test_a_known_loss_gives_the_figures_worked_out_by_hand(tmp_path: Path) -> None:
    said: list[list[Said]] = [
        # The cup is right. One of two dogs is found, and a wrong one that is less sure.
        [(CUP, A, 0.9), (DOGS, B, 0.8), (DOGS, FAR, 0.3)],
        # The best box of the cup is wrong, the second would be right.
        [(CUP, FAR, 0.9), (CUP, B, 0.5)],
        # This text has no phrase in truth.
        [(CUP, A, 0.9)],
        # Nothing for the tree; the dogs are one box around all three: IoU with each is 2500 / 22500.
        [(DOGS, (0, 0, 150, 150), 0.9)],
        # Nudged by a tenth of both sides: IoU 0.81 / 1.19.
        [(CUP, square(5, 105), 0.9)],
    ]
    quality = judged(tmp_path, TRUTH, said)
    assert (quality.phrases, quality.boxes, quality.predicted) == (6, 9, 8)
    # Right: the first cup, the first dogs, the last cup.
    assert quality.recall == 3 / 6
    # Reached: A and B of the first image, B of the second, C of the last.
    assert quality.box_recall == 4 / 9
    assert quality.precision == 4 / 8
    # Merged: the first cup, the dogs of the fourth image, the last cup. The first dogs are
    # (0, 0, 150, 150) in truth and (100, 0, 200, 200) as found; the second cup is around two far boxes.
    assert quality.merged_recall == 3 / 6


def test_a_box_belongs_to_the_phrase_that_its_span_overlaps_most(tmp_path: Path) -> None:
    truth = [[(CUP, A, None), (DOGS, B, None)]] * 4
    said: list[list[Said]] = [
        [((2, 5), A, None), ((14, 18), B, None)],  # "cup" is 3 of 5 characters, "dogs" 4 of 8
        [((0, 18), A, None)],  # "a cup and two dogs" is neither
        [(None, A, None)],  # words that are not in the text
        [(DOGS, A, None)],  # the right box of the wrong phrase
    ]
    quality = judged(tmp_path, truth, said)
    assert quality.recall == 2 / 8
    assert (quality.precision, quality.predicted) == (2 / 5, 5)


def test_a_box_without_a_score_is_certain_and_the_first_of_equals_is_best(tmp_path: Path) -> None:
    truth = [[(CUP, A, None)]] * 3
    certain = [(CUP, FAR, 0.9), (CUP, A, None)]
    first = [(CUP, A, 0.5), (CUP, FAR, 0.5)]
    last = [(CUP, FAR, 0.5), (CUP, A, 0.5)]
    assert judged(tmp_path, truth, [certain, first, last]).recall == 2 / 3


def test_phrases_of_other_texts_are_not_judged(tmp_path: Path) -> None:
    own = true_text()
    sources = {"human": [truth_of(TRUTH[0])], "grounder": [[own, *phrases(own, TRUTH[0])]], "quiet": [[]]}
    dataset = make_dataset(tmp_path, sources, 1)
    expected = GroundingQuality(0, 0, 0, 0, phrases=2, boxes=3, predicted=0)
    assert grounding_quality(dataset, "grounder", "human") == expected
    assert grounding_quality(dataset, "quiet", "human") == expected
    silent = grounding_quality(dataset, "human", "quiet")
    assert silent == GroundingQuality(0, 0, 0, 0, phrases=0, boxes=0, predicted=0)
    with pytest.raises(DatasetError, match="did you mean 'quiet'"):
        grounding_quality(dataset, "quit", "human")


def test_several_shards_and_texts_of_the_same_words_are_kept_apart(tmp_path: Path) -> None:
    many = 11  # the shards of these data sets have four images
    truth: list[list[Said]] = [[(CUP, square(10 * n, 0), None)] for n in range(many)]
    shifted = [truth[(n + 7) % many] for n in range(many)]
    assert judged(tmp_path / "right", truth, truth).recall == 1
    assert judged(tmp_path / "wrong", truth, shifted).recall == 0


numbers = st.integers(0, 10**6)
boxes = st.builds(
    lambda x, y, w, h: (float(x), float(y), float(x + w), float(y + h)),
    st.integers(0, 60), st.integers(0, 60), st.integers(10, 90), st.integers(10, 90),
)  # fmt: skip
true_rows = st.lists(st.tuples(st.sampled_from(SPANS), boxes, st.none()), max_size=5)
spans = st.sampled_from([*SPANS, (2, 5), (14, 18), (0, 18), None])
said_rows = st.lists(st.tuples(spans, boxes, st.sampled_from([0.25, 0.5, 0.75])), max_size=6)
pictures = st.lists(st.tuples(true_rows, said_rows), min_size=1, max_size=6)
on_disk = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def iou(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return shared / (areas - shared)


def around(some: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*some, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def overlap_of_spans(a: tuple[int, int], b: tuple[int, int]) -> float:
    return len({*range(*a)} & {*range(*b)}) / len({*range(*a)} | {*range(*b)})


def by_loops(truth: Sequence[Sequence[Said]], said: Sequence[Sequence[Said]]) -> GroundingQuality:
    hits = merged = reached = fitting = named = 0
    for right, found in zip(truth, said, strict=True):
        of_phrase: dict[tuple[int, int], list[Said]] = {span: [] for span, _, _ in right if span}
        named += len(of_phrase)
        for row in found:
            near = [
                span for span in of_phrase if row[0] is not None and overlap_of_spans(row[0], span) >= 0.5
            ]
            if near:
                of_phrase[near[0]].append(row)
        for span, rows in of_phrase.items():
            true_boxes = [box for other, box, _ in right if other == span]
            if rows:
                best = max(rows, key=lambda row: row[2] or 0)
                hits += any(iou(best[1], box) >= 0.5 for box in true_boxes)
                merged += iou(around([box for _, box, _ in rows]), around(true_boxes)) >= 0.5
            reached += sum(any(iou(row[1], box) >= 0.5 for row in rows) for box in true_boxes)
            fitting += sum(any(iou(row[1], box) >= 0.5 for box in true_boxes) for row in rows)
    total, predicted = sum(map(len, truth)), sum(map(len, said))
    return GroundingQuality(
        hits / named if named else 0,
        merged / named if named else 0,
        reached / total if total else 0,
        fitting / predicted if predicted else 0,
        named,
        total,
        predicted,
    )


@on_disk
@given(pictures)
def test_the_figures_are_those_of_the_definition(tmp_path_factory, some) -> None:
    truth, said = zip(*some, strict=True)
    assert judged(tmp_path_factory.mktemp("d"), truth, said) == by_loops(truth, said)


@on_disk
@given(pictures, numbers)
def test_dropping_and_moving_away_never_find_more(tmp_path_factory, some, seed) -> None:
    rng = np.random.default_rng(seed)
    truth, said = zip(*some, strict=True)
    whole = judged(tmp_path_factory.mktemp("whole"), truth, said)
    fewer = [[row for row in rows if rng.random() < 0.5] for rows in said]
    dropped = judged(tmp_path_factory.mktemp("dropped"), truth, fewer)
    assert dropped.box_recall <= whole.box_recall
    # Recall@1 can gain by the loss of a sure but wrong box; it cannot by the loss of a phrase's every box.
    without = [[row for row in rows if row[0] not in ((2, 5), CUP)] for rows in said]
    assert judged(tmp_path_factory.mktemp("without"), truth, without).recall <= whole.recall
    away = [[(s, (x0 + 1e4, y0, x1 + 1e4, y1), score) for s, (x0, y0, x1, y1), score in r] for r in said]
    lost = judged(tmp_path_factory.mktemp("away"), truth, away)
    assert (lost.recall, lost.merged_recall, lost.box_recall, lost.precision) == (0, 0, 0, 0)
