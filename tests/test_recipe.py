"""Recipes: what is refused before any work, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine import bounded_yaml
from data_engine.entry_point import code_version, signature
from data_engine.errors import RecipeError
from data_engine.recipe import load_recipe, read_recipe
from pipelines.recipe_files import builtin_recipes, find_recipe, recipe_text

GOOD = """
name: toy
specialists:
  numbers: {use: "tests.toy_specialists:Numbers", args: {pause: 0}}
  echo: {use: "tests.toy_specialists:Echo", needs: [numbers]}
filters:
  low: {use: "filters.score:MinimumScore", args: {minimum: 0.5}, where: {kind: region}}
"""


def read(text: str):
    return read_recipe(text, "toy.yaml")


def test_specialists_come_after_what_they_need():
    assert read(GOOD).ordered() == ["numbers", "echo"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("specialists:", "specialist:"), "unknown key 'specialist' - did you mean 'specialists'"),
        (("needs:", "need:"), "unknown key 'specialists.echo.need' - did you mean 'needs'"),
        (("where: {kind:", "where: {kinds:"), "did you mean 'kind'"),
        (("{kind: region}", "{kind: regoin}"), "did you mean 'region'"),
        (("pause: 0", "pauze: 0"), "takes no argument 'pauze' - did you mean 'pause'"),
        (("minimum: 0.5", ""), "needs the argument 'minimum'"),
        ((":Numbers", ":Number"), "has no 'Number' - did you mean 'Numbers'"),
        (("tests.toy_specialists:Numbers", "no_such.module:X"), "no module 'no_such.module'"),
        (("tests.toy_specialists:Numbers", "os.system"), "is no reference"),
        (("needs: [numbers]", "needs: [nombers]"), "did you mean 'numbers'"),
        (("needs: [numbers]", "batch: 0"), "specialists.echo.batch"),
        (("needs: [numbers]", "actors: 0"), "write a number from 1 to 100,000, or {min: 1, max: 8}"),
        (("needs: [numbers]", "actors: [2]"), "write a number from 1 to 100,000, or {min: 1, max: 8}"),
        (("needs: [numbers]", "actors: {min: 9, max: 8}"), "min is 9, above max, which is 8"),
        (("needs: [numbers]", "actors: {maxi: 8}"), "unknown key 'maxi' - did you mean 'max'"),
        (("needs: [numbers]", "actors: {max: many}"), "max: Input should be a valid integer"),
        (("needs: [numbers]", "resources: {GPU: 1}"), "'GPU' is no resource of this kind: write `gpus`"),
        (("needs: [numbers]", "resources: {tpu: 0}"), "specialists.echo.resources.tpu"),
        (("needs: [numbers]", "silence: 0"), "specialists.echo.silence"),
        (("needs: [numbers]", "runtime_env: {pipp: [x]}"), "Ray knows no 'pipp' - did you mean 'pip'"),
        (("needs: [numbers]", "runtime_env: {env_vars: {A: 1}}"), "write numbers in quotes"),
        (("echo:", "human:"), "cannot be a specialist's name"),
        (("echo:", "../x:"), "cannot be a specialist's name"),
        (("low:", "parent:"), "cannot be a filter's name"),
        (("name: toy", ""), "'name' is missing"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(change, message):
    assert change[0] in GOOD
    with pytest.raises(RecipeError) as caught:
        read(GOOD.replace(*change))
    assert message in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "- a\n- b", "name: [", "name: !!python/object/apply:os.system [ls]", "folder: /"]
)
def test_what_is_no_recipe_is_refused_and_nothing_in_it_is_executed(text):
    with pytest.raises(RecipeError):
        read(text)


def test_a_circle_of_needs_is_refused():
    with pytest.raises(RecipeError, match="circle"):
        read(GOOD.replace("args: {pause: 0}", "needs: [echo]"))


def test_paths_lie_beside_the_recipe_or_in_a_package(tmp_path: Path):
    (tmp_path / "r.yaml").write_text(
        "name: r\nspecialists:\n  a: {use: 'tests.toy_specialists:CannotLoad', args: {weights: ./w.pt}}\n"
        "  b: {use: 'tests.toy_specialists:CannotLoad', args: {weights: 'package:pipelines/recipes/scenes.yaml'}}\n"
    )
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.specialists["a"].args["weights"] == str(tmp_path / "w.pt")
    assert Path(recipe.specialists["b"].args["weights"]).is_file()


def test_the_code_version_is_what_the_module_declares_or_its_source(tmp_path, monkeypatch):
    assert code_version("tests.toy_specialists:Numbers") == "tests.toy_specialists:Numbers version 1"
    (tmp_path / "undeclared.py").write_text("class A:\n    def __init__(self, x, *, y=1, **more): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert " source " in code_version("undeclared:A")
    found = signature("undeclared:A")
    assert found is not None and (found.required, found.optional, found.open) == (("x",), ("y",), True)


@pytest.mark.parametrize("name", builtin_recipes())
def test_the_built_in_recipes_are_sound(name):
    recipe = find_recipe(name)
    assert recipe.name == name and recipe.description and recipe.specialists and recipe.filters


def test_a_long_text_among_the_arguments_is_no_path():
    # A prompt with a dot or a slash in it is longer than any file's name may be.
    from data_engine.fingerprint import _by_content

    prompt = "Describe the image in detail. " * 40
    assert _by_content({"prompt": prompt, "few": [prompt, 3]}, {}) == {"prompt": prompt, "few": [prompt, 3]}


REFINED = (
    GOOD
    + """
refine:
  learn: [numbers]
  student: {use: "tests.toy_refinement:ToyTrainer", args: {share: [1]}}
  relabel: {use: "tests.toy_refinement:ToyStudent"}
  merge: {use: "tests.toy_refinement:ToyMerge", args: {prefer: student}}
  filters:
    small: {use: "filters.score:MinimumScore", args: {minimum: 0.5}, where: {source: merged}}
"""
)


def test_what_a_round_fills_in_need_not_be_written():
    refine = read(REFINED).refine
    assert refine is not None and refine.rounds == 1 and refine.truth is None
    assert "model" not in refine.relabel.args and "originals" not in refine.merge.args


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("learn:", "lern:"), "unknown key 'refine.lern' - did you mean 'learn'"),
        (("relabel:", "relable:"), "did you mean 'relabel'"),
        (
            ("args: {share: [1]}", "argz: {share: [1]}"),
            "unknown key 'refine.student.argz' - did you mean 'args'",
        ),
        (("share: [1]", "shares: [1]"), "takes no argument 'shares' - did you mean 'share'"),
        (("args: {share: [1]}", "args: {}"), "needs the argument 'share'"),
        ((":ToyMerge", ":ToyMrge"), "has no 'ToyMrge' - did you mean 'ToyMerge'"),
        (("prefer: student", "prefers: student"), "takes no argument 'prefers' - did you mean 'prefer'"),
        (("learn: [numbers]", "learn: [number]"), "refine.learn: 'number' is no specialist"),
        (("learn: [numbers]", "learn: []"), "refine.learn"),
        (("learn: [numbers]", "learn: [numbers]\n  truth: numbers"), "so it cannot also judge"),
        (("learn: [numbers]", "learn: [numbers]\n  truth: trueth"), "did you mean 'truth'"),
        (("learn: [numbers]", "learn: [numbers]\n  held_out: 1.5"), "refine.held_out"),
        (("learn: [numbers]", "learn: [numbers]\n  accept: {confidense: 0.9}"), "did you mean 'confidence'"),
        (("where: {source: merged}", "where: {sources: merged}"), "did you mean 'source'"),
        (("  echo:", "  merged-1:"), "refinement gives this name to its own round"),
    ],
)
def test_a_mistake_in_the_section_on_refinement_is_named_too(change, message):
    assert change[0] in REFINED
    with pytest.raises(RecipeError) as caught:
        read(REFINED.replace(*change))
    assert message in str(caught.value) and "\n" not in str(caught.value) and caught.value.hint


TWICE = """name: x
specialists:
  a: {use: "tests.toy_specialists:Numbers"}
  a: {use: "tests.toy_specialists:Same"}
"""


def test_a_key_that_is_there_twice_is_named_with_its_line():
    for text, named in (
        (TWICE, "'a' is there twice in \"r.yaml\", line 4"),
        ("name: x\nname: y\n", "'name' is there twice in \"r.yaml\", line 2"),
        ('name: x\ndescription: [{a: 1, "a": 2}]\n', "'a' is there twice in \"r.yaml\", line 2"),
    ):
        with pytest.raises(RecipeError) as caught:
            read_recipe(text, "r.yaml")
        assert named in caught.value.message and "\n" not in caught.value.message


def test_keys_that_a_mapping_takes_over_may_be_given_anew():
    text = "one: &one {a: 1, b: 2}\ntwo: &two {<<: *one, a: 3}\nthree: {<<: [*two, *one], b: 4}\nfour: {<<: *two}\n"
    assert bounded_yaml.load(text) == {
        "one": {"a": 1, "b": 2},
        "two": {"a": 3, "b": 2},
        "three": {"a": 3, "b": 4},
        "four": {"a": 3, "b": 2},
    }


def test_a_file_that_cannot_be_read_as_text_says_why(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    for name, said, hint in (
        ("latin.yaml", "is not UTF-8", "save it as UTF-8"),
        ("", "is a folder", "name the YAML file"),
        ("nothing.yaml", "there is no recipe", "built-in name"),
    ):
        for read_it in (find_recipe, recipe_text):
            with pytest.raises(RecipeError, match=said) as caught:
                read_it(str(tmp_path / name))
            assert hint in caught.value.hint
    with pytest.raises(RecipeError, match="cannot read the recipe .*: No such file"):
        load_recipe(tmp_path / "nothing.yaml")
