"""How counts are said."""

from __future__ import annotations

from data_engine.recipe import FilterPart, Recipe
from data_engine.wording import counted
from pipelines.filter import FilterSummary
from pipelines.funnel import funnel


def test_one_is_one():
    assert [counted(n, "shard") for n in (0, 1, 2, 1200)] == [
        "0 shards",
        "1 shard",
        "2 shards",
        "1,200 shards",
    ]
    assert [counted(n, "box", "boxes") for n in (1, 2)] == ["1 box", "2 boxes"]


def test_filters_that_had_nothing_to_judge_leave_no_gap_for_a_share():
    low = FilterPart(use="filters.score:MinimumScore", args={"minimum": 0.5})
    assert list(funnel(Recipe(name="f", filters={"low": low}), FilterSummary())) == [
        "0 annotations of 0 images",
        "  dropped by low: 0, left 0",
        "  kept: 0",
    ]
