"""Which images are held out: by their ids alone, the same everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.errors import RecipeError
from data_engine.held_out import is_held_out

_ids = st.lists(st.binary(max_size=8).map(lambda b: hashlib.sha256(b).hexdigest()[:32]), max_size=50)
_shares = st.floats(0, 0.999)


@given(_ids, _shares)
def test_an_image_s_side_depends_on_no_other_image(ids: list[str], share: float) -> None:
    together = is_held_out(pa.array(ids, pa.string()), share)
    alone = [bool(is_held_out(pa.array([one]), share)[0]) for one in ids]
    assert together.tolist() == alone
    chunked = pa.chunked_array([ids[:3], ids[3:]], pa.string())
    assert is_held_out(chunked, share).tolist() == alone


@given(_ids, _shares, _shares)
def test_a_larger_share_only_adds_images(ids: list[str], one: float, other: float) -> None:
    less, more = (is_held_out(pa.array(ids, pa.string()), share) for share in sorted((one, other)))
    assert not (less & ~more).any()


def test_the_share_is_about_what_is_asked_for_and_the_first_digits_say_nothing_of_it() -> None:
    ids = [hashlib.sha256(str(i).encode()).hexdigest()[:32] for i in range(20_000)]
    held = is_held_out(pa.array(ids), 0.1)
    assert abs(held.mean() - 0.1) < 0.01
    early = np.array([one < "8" for one in ids])
    assert abs(held[early].mean() - held[~early].mean()) < 0.02
    assert not is_held_out(pa.array(ids), 0).any()


@pytest.mark.parametrize("share", [-0.1, 1, 2.0])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(RecipeError) as caught:
        is_held_out(pa.array(["0" * 32]), share)
    assert caught.value.hint
