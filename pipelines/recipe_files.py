"""Recipes by name: those that are built in, and YAML files of a user's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError
from data_engine.recipe import Recipe, load_recipe, read_recipe, text_of


def builtin_recipes() -> list[str]:
    return sorted(
        f.name.removesuffix(".yaml")
        for f in (files("pipelines") / "recipes").iterdir()
        if f.name.endswith(".yaml")
    )


def recipe_text(name: str) -> str:
    """The YAML of a built-in recipe or of a file. Raises RecipeError when it is neither, or cannot be read."""
    if name in builtin_recipes():
        return (files("pipelines") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    return text_of(recipe_file(name))


def recipe_file(name: str) -> Path:
    """A file by the name that a person gave. Raises RecipeError where there is nothing."""
    if not Path(name).exists():
        raise RecipeError(
            f"there is no recipe {name!r}{did_you_mean(name, builtin_recipes())}",
            "give a built-in name or a YAML file",
        )
    return Path(name)


def find_recipe(name: str) -> Recipe:
    """A checked recipe, by built-in name or file."""
    if name in builtin_recipes():
        return read_recipe(recipe_text(name), f"recipe {name}")
    return load_recipe(recipe_file(name))
