"""When a round is used and when another follows: the rules, over measures made up for it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from data_engine.recipe_parts import AcceptPart
from data_engine.rounds import Measured
from pipelines.acceptance import verdict_of

changes = st.lists(
    st.tuples(st.floats(-1, 1), st.floats(0, 0.5), st.booleans()).map(
        lambda c: Measured("merged-1", f"measure {c[0]:.3f}", 0.5, 0.4, 0.6, 10, c[2], c[0], c[0] - c[1], c[0] + c[1])
    ),
    max_size=6,
)  # fmt: skip


@given(changes, st.floats(0, 0.5))
def test_a_round_is_used_unless_something_that_decides_falls_beyond_chance(measured, gain):
    verdict = verdict_of(measured, AcceptPart(minimum_gain=gain))
    deciding = [(one.change_low, one.change_high) for one in measured if one.decides]
    fell = any(high < 0 for _, high in deciding)
    rose = any(low > gain for low, _ in deciding)
    assert verdict.accepted == (not fell)
    assert verdict.gained == (not deciding or (rose and not fell))
    assert verdict.reason.startswith("rejected:" if fell else "accepted")
    for one in measured:
        if one.decides and one.change_high < 0:
            assert one.measure in verdict.reason


def test_the_reason_names_the_measure_its_change_and_the_images():
    one = Measured("merged-1", "regions: F1", 0.7, 0.6, 0.8, 90, True, -0.1, -0.15, -0.05)
    reason = verdict_of([one], AcceptPart()).reason
    assert reason == (
        "rejected: regions: F1 fell by 0.100 to 0.700 (interval of the change -0.150 to -0.050, 90 images)"
    )


def test_what_could_not_be_measured_decides_nothing():
    nothing = Measured("merged-1", "lines", math.nan, math.nan, math.nan, 0)
    verdict = verdict_of([nothing], AcceptPart())
    assert verdict.accepted and verdict.gained and "nothing yet to compare" in verdict.reason
