"""Quality of text lines over data sets on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation
from data_engine.errors import DatasetError
from data_engine.quality.text import normalised, quad_iou, text_quality
from tests.test_quality_detection import make_dataset


def line(text: str, x: float, y: float, score: float | None = None, *, quad: bool = True) -> Annotation:
    box = (x, y, x + 60, y + 10)
    corners = (x, y, x + 60, y, x + 60, y + 10, x, y + 10)
    return Annotation("region", text, "ocr", box=box, quad=corners if quad else None, score=score)


TRUTH = [
    [line("Exit", 10, 10), line("NO ENTRY", 10, 40)],
    [],
    [line("Ａ １", 5, 5, quad=False)],
    [line("same", 10, 10), line("same", 100, 100)],
    [line("last", 0, 0)],
]


def test_lines_equal_to_the_truth_are_perfect(tmp_path: Path) -> None:
    quality = text_quality(make_dataset(tmp_path, {"human": TRUTH, "ocr": TRUTH}, 5), "ocr", "human")
    for scores in (quality.located, quality.exact, quality.normalised):
        assert (scores.precision, scores.recall, scores.f1) == (1, 1, 1)
    assert quality.truth == quality.predicted == 6


def test_place_case_and_width_of_letters_are_told_apart(tmp_path: Path) -> None:
    said = [
        [line("exit", 12, 11, 0.9), line("NO  ENTRY", 10, 80, 0.9)],  # another case; another place
        [line("ghost", 10, 10, 0.9)],
        [line("a 1", 5, 5, 0.9)],  # full-width letters of truth written as plain ones
        [line("same", 10, 10, 0.9), line("same", 11, 10, 0.8)],  # twice the same line
        [line("lost", 0, 0, 0.9)],
    ]
    quality = text_quality(make_dataset(tmp_path, {"human": TRUTH, "ocr": said}, 5), "ocr", "human")
    assert (quality.truth, quality.predicted) == (6, 7)
    assert quality.located.recall == 4 / 6 and quality.located.precision == 4 / 7
    assert quality.exact.recall == 1 / 6 and quality.exact.precision == 1 / 7
    assert quality.normalised.recall == 3 / 6 and quality.normalised.f1 == 2 * 3 / (6 + 7)


def test_lines_below_the_threshold_do_not_count(tmp_path: Path) -> None:
    said = [[line("Exit", 10, 10, 0.2)], [], [], [], [line("last", 0, 0, 0.8)]]
    dataset = make_dataset(tmp_path, {"human": TRUTH, "ocr": said}, 5)
    assert text_quality(dataset, "ocr", "human").exact.recall == 2 / 6
    assert text_quality(dataset, "ocr", "human", threshold=0.5).predicted == 1


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no annotations by 'ocr'"):
        text_quality(make_dataset(tmp_path, {"human": TRUTH}, 5), "ocr", "human")


def rectangles() -> st.SearchStrategy[np.ndarray]:
    def build(x: float, y: float, width: float, height: float, degrees: float, back: bool) -> np.ndarray:
        turn = np.deg2rad(degrees)
        matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ matrix + [x, y]
        return corners[::-1] if back else corners

    place, side = st.floats(0, 40), st.floats(1, 60)
    return st.builds(build, place, place, side, side, st.floats(-180, 180), st.booleans())


@given(rectangles(), rectangles())
def test_the_overlap_of_quads_is_that_of_a_geometry_library(a: np.ndarray, b: np.ndarray) -> None:
    geometry = pytest.importorskip("shapely.geometry")  # rapidocr brings it
    one, two = geometry.Polygon(a), geometry.Polygon(b)
    expected = one.intersection(two).area / one.union(two).area
    assert quad_iou(a, b) == pytest.approx(expected, abs=1e-6)
    assert quad_iou(a, b) == pytest.approx(quad_iou(b, a), abs=1e-9)
    assert quad_iou(a, a) == pytest.approx(1)


def test_normalisation_is_for_width_case_and_blanks() -> None:
    assert normalised("  Straße\tＡ１ ") == "strasse a1"
    assert normalised("No. 5") != normalised("No 5")
