"""The documents say what the code does: reasons, exit codes, the command line's own help."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import data_engine.errors as errors

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def reasons() -> set[str]:
    """Every literal first argument of ImageError in the engine and the specialists."""
    found = set()
    for package in ("data_engine", "specialists"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id
                if called == "ImageError" and node.args and isinstance(node.args[0], ast.Constant):
                    found.add(node.args[0].value)
    return found


def test_every_reason_is_documented_and_every_documented_one_exists():
    documented = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "failures.md").read_text(), re.MULTILINE))
    # `truncated` is chosen by a condition, so it is no literal argument.
    assert documented == reasons() | {"truncated"}


def test_exit_codes_stand_in_the_error_tree_and_in_the_docs():
    table = (DOCS / "failures.md").read_text()
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.FdeError) and error is not errors.ImageError:
            assert re.search(rf"{error.__name__} +{error.exit_code}\b", errors.__doc__), error.__name__
            assert f"| {error.exit_code} |" in table


def test_the_command_reference_is_what_help_prints():
    """Written by `FDE_WRITE_DOCS=1 make test`, held against --help otherwise."""
    commands = [
        [],
        ["ingest"],
        ["annotate"],
        ["filter"],
        ["refine"],
        ["sql"],
        ["view"],
        ["qa"],
        ["report"],
        ["eval"],
        ["draw"],
        ["status"],
        ["retry"],
        ["submit"],
        ["demo"],
    ]
    commands += [["recipe", "list"], ["recipe", "show"], ["recipe", "check"]]
    commands += [["jobs", "list"], ["jobs", "logs"], ["jobs", "stop"]]
    commands += [["scenes", "make"], ["scenes", "train"], ["scenes", "evaluate"]]
    parts = ["# Command reference\n\nWhat `--help` prints, command by command.\n"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *command, "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100"},
        )
        text = done.stdout.replace("python -m pipelines", "fde").rstrip()
        parts.append(f"## fde {' '.join(command)}".rstrip() + f"\n\n```\n{text}\n```\n")
    page = "\n".join(parts)
    target = DOCS / "cli.md"
    if os.environ.get("FDE_WRITE_DOCS"):
        target.write_text(page)
    assert target.read_text() == page, "write it anew with: FDE_WRITE_DOCS=1 make test"


def test_the_recipe_page_shows_every_key_and_its_example_is_sound():
    from data_engine.recipe import FilterPart, Recipe, SpecialistPart, Where, read_recipe

    page = (DOCS / "recipes.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    recipe = read_recipe(example[1], "docs/recipes.md")
    for model in (Recipe, SpecialistPart, FilterPart, Where):
        for key in set(model.model_fields) - {"folder"}:
            assert re.search(rf"^ *{key}:", example[1], re.MULTILINE), key
    assert recipe.specialists and recipe.filters


def test_the_recipe_page_names_every_class_that_a_recipe_can_use():
    from data_engine.entry_point import signature

    named = set(re.findall(r"`((?:specialists|filters)\.\w+:\w+)`", (DOCS / "recipes.md").read_text()))
    for use in named:
        assert signature(use) is not None
    modules = {use.split(":")[0] for use in named}
    filters = {f"filters.{p.stem}" for p in (ROOT / "filters").glob("*.py") if p.stem != "__init__"}
    assert filters <= modules
