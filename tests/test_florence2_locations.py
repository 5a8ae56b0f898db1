"""Pixels to location tokens and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from specialists.florence2.locations import BINS, dequantise, quantise, written

untimed = settings(deadline=None)
sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@untimed
@given(hnp.arrays(np.int64, (7, 4), elements=st.integers(0, BINS - 1)), sizes)
def test_every_bin_survives_the_way_there_and_back(bins: np.ndarray, size: tuple[int, int]) -> None:
    assert np.array_equal(quantise(dequantise(bins, size), size), bins)


@untimed
@given(hnp.arrays(np.float64, (5, 8), elements=st.floats(0, 1)), sizes)
def test_a_coordinate_comes_back_within_half_a_bin(relative: np.ndarray, size: tuple[int, int]) -> None:
    points = relative * np.tile(size, 4)
    error = np.abs(dequantise(quantise(points, size), size) - points)
    assert (error <= np.tile(size, 4) / BINS / 2 * (1 + 1e-6)).all()


@untimed
@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e7, 1e7)), sizes)
def test_bins_are_tokens_that_exist_wherever_the_point_lies(
    points: np.ndarray, size: tuple[int, int]
) -> None:
    bins = quantise(points, size)
    assert bins.min() >= 0
    assert bins.max() < BINS


@untimed
@given(st.floats(0, 1), st.floats(0, 1), sizes)
def test_order_is_kept(a: float, b: float, size: tuple[int, int]) -> None:
    low, high = quantise([[v * size[0], v * size[1]] for v in sorted((a, b))], size)
    assert (low <= high).all()


def test_width_and_height_count_apart_and_bins_are_rounded_down() -> None:
    assert quantise([99.9, 99.9, 100.0, 200.0], (100, 200)).tolist() == [999, 499, 999, 999]
    assert dequantise([0, 999], (100, 200)).tolist() == pytest.approx([0.05, 199.9])
    assert written((0, 50, 100, 100), (100, 100)) == "<loc_0><loc_500><loc_999><loc_999>"


def test_an_eight_pixel_box_keeps_its_overlap() -> None:
    # Cut to whole pixels it would come back with an IoU of 0.79 at worst.
    box, size = np.array([500.3, 300.2, 508.3, 308.2]), (1000, 800)
    back = dequantise(quantise(box, size), size)
    common = np.prod(np.minimum(back[2:], box[2:]) - np.maximum(back[:2], box[:2]))
    assert common / (np.prod(back[2:] - back[:2]) + 64 - common) > 0.9


def test_an_odd_number_of_coordinates_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        quantise([1, 2, 3], (10, 10))
