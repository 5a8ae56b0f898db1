"""Whether a round is used, and whether another may gain more: rules over its measures, with words for why."""

from __future__ import annotations

from collections.abc import Sequence

from data_engine.recipe_parts import AcceptPart
from data_engine.rounds import Measured, Verdict


def verdict_of(measured: Sequence[Measured], accept: AcceptPart) -> Verdict:
    """Judge a round by those of its measures that decide.

    It is rejected where one falls and the whole interval around its change lies below 0: what falls beyond
    chance is a loss, whatever else rises. It gained where one rises and its interval lies above
    `minimum_gain`. One without anything to compare is accepted, and gained.
    """
    deciding = [(one, one.change, one.change_low, one.change_high) for one in measured if one.decides]
    known = [
        (one, change, low, high)
        for one, change, low, high in deciding
        if change is not None and low is not None and high is not None
    ]
    if not known:
        return Verdict(True, "accepted: there is nothing yet to compare it with", True)
    fallen = [said(one) for one, _, _, high in known if high < 0]
    if fallen:
        return Verdict(False, f"rejected: {'; '.join(fallen)}", False)
    risen = [said(one) for one, _, low, _ in known if low > accept.minimum_gain]
    if risen:
        return Verdict(True, f"accepted: {'; '.join(risen)}", True)
    most = max(known, key=lambda row: row[1])[0]
    return Verdict(True, f"accepted, but no gain beyond chance; most: {said(most)}", False)


def said(one: Measured) -> str:
    """A measure and its change in words."""
    change, low, high = one.change or 0.0, one.change_low or 0.0, one.change_high or 0.0
    verb = "rose" if change > 0 else "fell" if change < 0 else "stayed"
    return (
        f"{one.measure} {verb} by {abs(change):.3f} to {one.value:.3f} "
        f"(interval of the change {low:+.3f} to {high:+.3f}, {one.images} images)"
    )
