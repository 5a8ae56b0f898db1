"""Wrong statements: other images' words, never the image's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.errors import SpecialistError
from data_engine.image import Image
from specialists.mismatched import Mismatched

PIXELS = np.zeros((8, 8, 3), np.uint8)


def said_of(words: list[list[str]]) -> tuple[list[Image], AnnotationRows]:
    """Per image its words, each as a brief text, a region, and a description of it; and a line of writing."""
    images = [Image(f"{n:032x}", PIXELS) for n in range(len(words))]
    rows = AnnotationRows("truth")
    for image, some in zip(images, words, strict=True):
        for place, word in enumerate(some):
            region = Annotation("region", word, "phrase", box=(0, 0, 2 + place, 4))
            rows.add(
                image.image_id,
                [
                    Annotation("text", word, "brief"),
                    region,
                    Annotation("region", word, "brief", parent=region, box=region.box),
                    Annotation("region", word, "ocr", box=region.box),
                ],
            )
    return images, rows


@given(st.lists(st.lists(st.sampled_from(["cup", "Cup", "dog", "tree"]), max_size=3), max_size=6))
def test_words_are_another_images_and_never_the_images_own(words: list[list[str]]) -> None:
    images, rows = said_of(words)
    made = Mismatched()(images, rows.table())
    own = [{word.casefold() for word in some} for some in words]
    for mine, some, wrong in zip(own, words, made, strict=True):
        assert all((a.text or "").casefold() not in mine for a in wrong)
        # Where any image of the batch has other words, each statement has its wrong one.
        expected = 3 * len(some) if set().union(*own) - mine else 0
        assert len(wrong) == expected
        boxes = [a.box for a in wrong if (a.kind, a.granularity) == ("region", "phrase")]
        assert boxes == [(0, 0, 2 + place, 4) for place in range(len(boxes))]
    again = Mismatched()(images, rows.table())
    assert [[a.text for a in some] for some in again] == [[a.text for a in some] for some in made]


def test_without_right_statements_there_are_no_wrong_ones() -> None:
    with pytest.raises(SpecialistError, match="none were given"):
        Mismatched()([Image("0" * 32, PIXELS)], None)
