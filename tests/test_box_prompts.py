"""Which statements ask for a mask of their box, and what becomes of the masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import ImageError
from data_engine.image import Image
from specialists.box_prompts import Prompts, mask_rows, prompts
from specialists.said import statement_of

IMAGE = Image("1" * 32, np.zeros((60, 80, 3), np.uint8))
NAN, FAR = float("nan"), float("inf")


def asked(*boxes: Any) -> Prompts:
    return prompts(
        IMAGE, [statement_of(Annotation("region", "thing", "phrase", box=box, score=0.5)) for box in boxes]
    )


def test_regions_and_phrases_ask_but_not_lines_of_text_masks_nor_further_texts_of_a_region() -> None:
    box = (10.0, 10.0, 30.0, 30.0)
    text = Annotation("text", "a dog", "brief")
    region = Annotation("region", "dog", "phrase", box=box)
    phrase = Annotation("phrase", "a dog", parent=text, span=(0, 5), box=box)
    given = [
        text,
        phrase,
        region,
        Annotation("region", "a dog that barks", "brief", parent=region, box=box),
        Annotation("region", parent=region, box=box, mask={"size": [60, 80], "counts": "0"}),
        Annotation("phrase", parent=phrase, box=box, mask={"size": [60, 80], "counts": "0"}),
        Annotation("region", "DOG", "ocr", box=box),
        Annotation("region", None, "proposal", box=box),
        Annotation("phrase", parent=phrase, score=0.5),
    ]
    found = prompts(IMAGE, [statement_of(one) for one in given])
    assert [one.reference for one in found.asking] == [phrase, region, given[7]]
    assert found.boxes.tolist() == [list(box)] and found.box_of.tolist() == [0, 0, 0]


def test_boxes_are_cut_at_the_image_and_each_asked_once() -> None:
    found = asked((-5, 3, 20, 70), (1, 1, 2, 2), (0, 3, 20, 60), (0.25, 0.5, 80, 60))
    assert found.boxes[found.box_of].tolist() == [
        [0, 3, 20, 60],
        [1, 1, 2, 2],
        [0, 3, 20, 60],
        [0.25, 0.5, 80, 60],
    ]
    assert len(found.boxes) == 3


@pytest.mark.parametrize(
    "box",
    [
        (NAN, 0, 5, 5), (0, NAN, 5, 5), (0, 0, NAN, 5), (0, 0, 5, NAN), (-FAR, -FAR, FAR, FAR), (9, 9, 9, 20),
        (9, 9, 20, 9), (30, 9, 20, 20), (80, 0, 90, 10), (0, 60, 10, 70), (-9, 0, 0, 9), (0, -9, 9, 0),
    ],
)  # fmt: skip
def test_a_box_that_is_none_or_beside_the_image_asks_for_nothing(box: Any) -> None:
    found = asked(box, (1, 2, 3, 4))
    assert found.boxes.tolist() == [[1, 2, 3, 4]] and len(found.asking) == 1


def test_an_image_of_which_nothing_was_said_asks_for_nothing() -> None:
    found = prompts(IMAGE, [])
    assert found.boxes.shape == (0, 4) and found.annotations([]) == []


@given(st.data())
@settings(deadline=None)
def test_a_row_is_the_masks_run_lengths_and_its_extent_as_coco_has_them(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    masks = data.draw(arrays(bool, shape))
    scores = data.draw(arrays(np.float32, shape[0], elements=st.floats(-2, 3, width=32)))
    for mask, score, row in zip(masks, scores, mask_rows(masks, scores), strict=True):
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        if not mask.any():
            assert row is None
            continue
        assert row is not None
        assert row["mask"] == {"size": list(mask.shape), "counts": expected["counts"].decode()}
        x, y, width, height = coco_mask.toBbox(expected).tolist()
        assert row["box"] == (x, y, x + width, y + height)
        assert row["score"] == min(max(score, 0), 1)


def test_each_statement_has_its_boxs_mask_and_what_has_none_is_told_of_only_if_it_is_an_error() -> None:
    found = asked((0, 0, 9, 9), (20, 20, 40, 40), (5, 5, 9, 9), (0, 0, 9, 9), (6, 6, 9, 9))
    masks = np.zeros((4, 60, 80), bool)
    numbers = {tuple(box): i for i, box in enumerate(found.boxes.tolist())}
    scores = np.full(4, 0.5, np.float32)
    masks[numbers[(0, 0, 9, 9)], 2:5, 1:4] = True
    masks[numbers[(20, 20, 40, 40)], 30, 30] = True
    scores[numbers[(20, 20, 40, 40)]] = np.nan  # a mask without a number
    scores[numbers[(5, 5, 9, 9)]] = np.inf  # neither, as from a network that overflowed
    *made, error = found.annotations(mask_rows(masks, scores))  # and (6, 6, 9, 9) has an empty one
    assert [row.parent for row in made] == [found.asking[0].reference, found.asking[3].reference]
    assert all(
        (row.kind, row.text, row.box, row.score) == ("region", None, (1, 2, 4, 5), 0.5) for row in made
    )
    assert isinstance(error, ImageError) and error.reason == "bad_annotation" and "2 masks" in str(error)
    table = [one.reference for one in found.asking] + made
    assert AnnotationRows("sam").add(IMAGE.image_id, table, (80, 60)) == []
