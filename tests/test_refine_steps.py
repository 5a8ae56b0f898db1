"""What a round asks whom: the sources of its steps, and what each is given."""

from __future__ import annotations

from pathlib import Path

from data_engine.refine_part import RefinePart
from pipelines.recipe_files import find_recipe
from pipelines.refine_steps import merge_recipe, relabel_recipe

GROUND = {"use": "specialists.florence2:Florence2", "args": {"tasks": ["CAPTION_TO_PHRASE_GROUNDING"]}}


def recipe(**changes):
    found = find_recipe("refine-scenes")
    assert found.refine is not None
    section = RefinePart.model_validate({**found.refine.model_dump(), **changes})
    return found.model_copy(update={"refine": section})


def test_each_step_is_a_source_and_has_what_it_is_about():
    made = relabel_recipe(recipe(ground=GROUND), 2, Path("models/2")).specialists
    asked = {name: part for name, part in made.items() if name.endswith("-2")}
    assert sorted(asked) == ["asked-2", "doubt-2", "grounded-2", "mended-2", "pointed-2", "student-2"]
    assert list(asked["student-2"].needs) == []
    for name in ("pointed-2", "mended-2", "doubt-2"):
        assert list(asked[name].needs) == ["noisy"], name
        assert asked[name].args["sources"] == ["noisy"], name
    # Mended texts are found in the image like those that they were made from.
    assert list(asked["grounded-2"].needs) == ["noisy", "mended-2"]
    # None of them sees what filters dropped.
    assert all(asked[name].kept == 0 for name in ("pointed-2", "mended-2", "grounded-2", "doubt-2"))


def test_a_merge_is_told_which_of_the_student_is_mended_and_which_was_shown():
    merge = merge_recipe(recipe(), 1, Path("models/1"), {"add_above": 0.3}).specialists["merged-1"]
    assert merge.args == {
        "originals": ["noisy"],
        "student": ["student-1", "pointed-1", "mended-1"],
        "mended": "mended-1",
        "pointed": "pointed-1",
        "doubt": "doubt-1",
        "add_above": 0.3,
    }
    assert list(merge.needs) == ["noisy", "student-1", "pointed-1", "mended-1", "doubt-1"]


def test_steps_that_a_recipe_leaves_out_are_no_sources():
    bare = recipe(point=None, mend=None, doubt=None)
    assert "pointed-1" not in relabel_recipe(bare, 1, Path("models/1")).specialists
    merge = merge_recipe(bare, 1, Path("models/1"), {}).specialists["merged-1"]
    assert merge.args == {"originals": ["noisy"], "student": "student-1"}
    assert list(merge.needs) == ["noisy", "student-1"]
