"""Quality of the masks of truth's own statements, over data sets on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import DatasetError
from data_engine.quality.masks import MaskQuality, mask_quality
from tests.test_quality_detection import SIZE, image_id, make_dataset, square_mask

BOX = (10, 10, 60, 60)


def statement(kind: str, text: str) -> Annotation:
    return Annotation(kind, text, "phrase" if kind == "region" else None, box=BOX)


def mask(parent: Annotation | str, kind: str, rle: dict[str, object], score: float | None = None):
    return Annotation(kind, parent=parent, box=BOX, mask=rle, score=score)


def id_of(number: int, one: Annotation) -> str:
    rows = AnnotationRows("human")
    rows.add(image_id(number), [one])
    return str(rows.table()["annotation_id"][0].as_py())


def truth(of: Sequence[Sequence[tuple[str, str, dict[str, object]]]]) -> list[list[Annotation]]:
    """Per image (kind, text, mask) triples, as statements with their masks."""
    made: list[list[Annotation]] = []
    for some in of:
        made.append([])
        for kind, text, rle in some:
            parent = statement(kind, text)
            made[-1] += [parent, mask(parent, kind, rle)]
    return made


SQUARE = square_mask(10, 10, 50)
TRUTH = [
    [("region", "cup", SQUARE), ("region", "dog", SQUARE), ("phrase", "a cup", SQUARE)],
    [("region", "cup", SQUARE)],
    [],
    [],
    [("phrase", "a tree", square_mask(100, 100, 20))],
]


def said(*answers: tuple[int, str, str, dict[str, object], float | None]) -> list[list[Annotation]]:
    """Masks of truth's statements: (image, kind, text, mask, score)."""
    made: list[list[Annotation]] = [[] for _ in TRUTH]
    for number, kind, text, rle, score in answers:
        made[number].append(mask(id_of(number, statement(kind, text)), kind, rle, score))
    return made


def test_masks_equal_to_the_truth_are_perfect(tmp_path: Path) -> None:
    every = [(n, *one, None) for n, some in enumerate(TRUTH) for one in some]
    dataset = make_dataset(tmp_path, {"human": truth(TRUTH), "segmenter": said(*every)}, len(TRUTH))
    for source in ("segmenter", "human"):
        assert mask_quality(dataset, source, "human", "region") == MaskQuality(1, 1, 3, 3)
        assert mask_quality(dataset, source, "human", "phrase") == MaskQuality(1, 1, 2, 2)


def test_a_known_loss_gives_the_figures_worked_out_by_hand(tmp_path: Path) -> None:
    answers = said(
        (0, "region", "cup", square_mask(20, 10, 50), 0.9),  # 40 of 60 columns: IoU 2/3
        (0, "region", "dog", square_mask(35, 10, 50), 0.9),  # 25 of 75 columns: IoU 1/3
        # Nothing for the cup of the second image.
        (0, "phrase", "a cup", square_mask(120, 120, 50), 0.9),  # elsewhere
        (0, "phrase", "a cup", SQUARE, 0.4),  # right, but not the best-scored
        (4, "phrase", "a tree", square_mask(100, 100, 20), None),  # certain
        (4, "phrase", "a tree", square_mask(0, 0, 20), 0.9),
    )
    other = [mask(statement("region", "cup"), "region", SQUARE)]
    answers[2] = [other[0].parent, *other]  # a mask of the source's own region is not judged here
    dataset = make_dataset(tmp_path, {"human": truth(TRUTH), "segmenter": answers, "quiet": [[]] * 5}, 5)
    regions = mask_quality(dataset, "segmenter", "human", "region")
    assert regions.mean_iou == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert (regions.above_half, regions.truth, regions.predicted) == (1 / 3, 3, 2)
    assert mask_quality(dataset, "segmenter", "human", "phrase") == MaskQuality(1 / 2, 1 / 2, 2, 2)
    assert mask_quality(dataset, "quiet", "human", "region") == MaskQuality(0, 0, 3, 0)
    assert mask_quality(dataset, "human", "quiet", "region") == MaskQuality(0, 0, 0, 0)
    with pytest.raises(DatasetError, match="no annotations by 'segmentor'"):
        mask_quality(dataset, "segmentor", "human", "region")


def test_of_masks_with_equal_scores_the_first_counts(tmp_path: Path) -> None:
    elsewhere = square_mask(120, 120, 50)
    answers = said(
        (0, "region", "cup", SQUARE, 0.5),
        (0, "region", "cup", elsewhere, 0.5),
        (1, "region", "cup", SQUARE, None),
        (1, "region", "cup", elsewhere, None),
    )
    dataset = make_dataset(tmp_path, {"human": truth(TRUTH), "segmenter": answers}, len(TRUTH))
    assert mask_quality(dataset, "segmenter", "human", "region") == MaskQuality(2 / 3, 2 / 3, 3, 2)


def test_a_mask_of_another_size_of_picture_overlaps_nothing(tmp_path: Path) -> None:
    small = coco_mask.encode(np.ones((20, 20), np.uint8, order="F"))
    rle = {"size": [20, 20], "counts": small["counts"].decode()}
    answers = said((1, "region", "cup", rle, 0.9))
    dataset = make_dataset(tmp_path, {"human": truth(TRUTH), "segmenter": answers}, len(TRUTH))
    assert mask_quality(dataset, "segmenter", "human", "region") == MaskQuality(0, 0, 3, 1)


def noise(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.random((8, 8)) < rng.uniform(0.1, 0.9)
    pixels: np.ndarray = blocks.repeat(SIZE // 8, axis=0).repeat(SIZE // 8, axis=1)
    pixels[0, 0] = True  # none is empty
    return pixels


def encoded(pixels: np.ndarray) -> dict[str, object]:
    rle = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=6))
def test_the_mean_is_that_of_counted_pixels_and_dropping_never_raises_it(tmp_path_factory, seeds) -> None:
    pairs = [(noise(a), noise(b)) for a, b in seeds]
    right = truth([[("region", "cup", encoded(a))] for a, _ in pairs])
    answers = [
        [mask(id_of(n, statement("region", "cup")), "region", encoded(b))] for n, (_, b) in enumerate(pairs)
    ]
    fewer = [some if n % 2 else [] for n, some in enumerate(answers)]
    dataset = make_dataset(
        tmp_path_factory.mktemp("d"), {"human": right, "all": answers, "fewer": fewer}, len(pairs)
    )
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])
    whole = mask_quality(dataset, "all", "human", "region")
    assert whole.mean_iou == pytest.approx(expected)
    part = mask_quality(dataset, "fewer", "human", "region")
    assert part.mean_iou <= whole.mean_iou and part.above_half <= whole.above_half
