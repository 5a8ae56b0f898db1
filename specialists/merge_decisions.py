"""What a merge decides about one statement by its score and the student's likelihoods."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specialists.merge_rows import Row
from specialists.merge_settings import ADD_ABOVE, DOUBT_LOCATED, DOUBT_NAMED, WEIGHT, MergeSettings


def below(value: float, settings: MergeSettings, name: str, row: Row) -> bool:
    """Whether a likelihood is there and too low."""
    return not math.isnan(value) and value < settings.above(name, row.kind, row.granularity)


def is_doubted(row: Row, settings: MergeSettings) -> bool:
    return below(row.likelihood.named, settings, DOUBT_NAMED, row) or below(
        row.likelihood.located, settings, DOUBT_LOCATED, row
    )


def is_added(row: Row, settings: MergeSettings) -> bool:
    return sureness(row, settings) >= settings.above(ADD_ABOVE, row.kind, row.granularity)


def strength(row: Row, settings: MergeSettings) -> float:
    """How much a box counts in a mean: by its side, its score, and how likely the student finds its place."""
    side = settings.above(WEIGHT, row.kind, row.granularity) if row.role == "student" else 1.0
    located = row.likelihood.located
    return side * sureness(row, settings) * (1.0 if math.isnan(located) else located)


def best_score(rows: Sequence[Row], settings: MergeSettings) -> float | None:
    """The surest member's, for that others agree makes it no less sure; None where that one has none."""
    return max(rows, key=lambda row: sureness(row, settings)).score


def sureness(row: Row, settings: MergeSettings) -> float:
    """Its score, or what one without counts for."""
    return settings.unscored if row.score is None else row.score


def kept_score(row: Row, settings: MergeSettings) -> float | None:
    """Its own; lower by what the student makes of it, where that is known."""
    known = [v for v in (row.likelihood.named, row.likelihood.located) if not math.isnan(v)]
    if not known:
        return row.score
    return sureness(row, settings) * min(known)
