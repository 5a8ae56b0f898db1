"""Filters measured on scenes with known errors: the figures are those of the rows, counted by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.query import sql
from data_engine.recipe import Recipe, read_recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.world import PRETRAINING
from pipelines.faults import faults

RECIPE = """
name: toys
specialists:
  noisy:
    use: specialists.noise:Noise
    needs: [truth]
    args: &noise {rates: {repeated: 0.3, alt_text: 0.2, missed: 0.2, jittered: 0.5}, sigma: 0.3}
  noise:
    use: specialists.noise:NoiseLabels
    needs: [truth, noisy]
    args: {<<: *noise, of: noisy}
filters:
  repetition:
    use: filters.repetition:Repetition
    where: {kind: text, source: noisy}
  tiny:
    use: filters.box_size:MinimumSide
    args: {pixels: 30}
    where: {kind: region, source: noisy}
"""


def test_each_filter_s_share_of_errors_and_what_it_finds(tmp_path: Path) -> None:
    said: list[str] = []
    recipe = read_recipe(RECIPE, "toys.yaml")
    found = faults(
        tmp_path,
        recipe,
        PRETRAINING,
        25,
        3,
        reporter=Reporter(terminal=False),
        say=said.append,
        runner="inline",
    )
    assert [one.name for one in found][:3] == ["repetition", "tiny", "parent"]
    dataset = Dataset.open(str(next(tmp_path.iterdir()) / "dataset"))
    rows = sql(dataset, "SELECT annotation_id, dropped_by FROM verdicts WHERE source = 'noisy'").to_pylist()
    labels = sql(
        dataset, "SELECT parent_id, text FROM annotations WHERE source = 'noise' AND text <> 'reanchored'"
    ).to_pylist()
    changes: dict[str, set[str]] = {}
    for label in labels:
        changes.setdefault(label["parent_id"], set()).add(label["text"])
    every = Counter(c for row in rows for c in changes.get(row["annotation_id"], ()))
    for one in found[:3]:
        mine = [row["annotation_id"] for row in rows if row["dropped_by"] == one.name]
        assert one.dropped == len(mine) > 0
        assert one.precision == pytest.approx(sum(i in changes for i in mine) / len(mine))
        caught = Counter(c for i in mine for c in changes.get(i, ()))
        assert one.recall == {c: pytest.approx(n / every[c]) for c, n in caught.items()}
    assert found[0].recall["repeated"] > 0.3 and found[0].precision > 0.8
    assert "missed" not in every  # what is not there cannot be dropped
    assert len(said) == 1 + len(found) and "repeated" in said[1]


def test_a_recipe_without_known_errors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'noisy'"):
        faults(tmp_path, Recipe(name="none"), PRETRAINING, 1, 0, reporter=Reporter(terminal=False), say=print)
    assert not list(tmp_path.iterdir())


def test_the_shipped_recipe_is_sound() -> None:
    from pipelines.recipe_files import find_recipe

    assert {"noisy", "noise"} <= set(find_recipe("faults").specialists)
