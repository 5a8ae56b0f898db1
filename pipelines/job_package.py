"""What of a recipe's folder a job needs on the cluster: the recipe, the code beside it, the files it names.

Ray sends a job one folder, its working directory. A recipe often lies beside data sets and weights of any size, so
that folder is made anew from what the recipe refers to, and nothing else travels.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_engine.bounded_yaml import load
from data_engine.errors import RecipeError
from data_engine.recipe import load_recipe, text_of
from data_engine.storage import is_local
from pipelines.recipe_files import builtin_recipes, recipe_file

LARGEST = 500 << 20
"""Bytes that Ray lets a job send."""


def packaged(
    arguments: list[str], working_dir: Path | None, scratch: Path, note: Callable[[str], None]
) -> list[str]:
    """The arguments as they are on the cluster: a recipe's file by its name in the folder that is sent.

    That folder is `working_dir`, or `scratch`, into which the recipe and what it refers to are copied. Raises
    RecipeError where a recipe is not there, not sound, or not in `working_dir`.
    """
    for place, name in _recipes(arguments):
        if name in builtin_recipes():
            continue
        recipe = recipe_file(name)
        if working_dir is None:
            sent = package(recipe, scratch)
            note(f"sending {', '.join(sent)}")
            there = recipe.name
        elif recipe.absolute().is_relative_to(working_dir.absolute()):
            there = str(recipe.absolute().relative_to(working_dir.absolute()))
        else:
            raise RecipeError(
                f"{name} does not lie in {working_dir}", "put it there, or leave --working-dir out"
            )
        for path in paths_of_this_machine(recipe):
            note(f"{recipe.name} names {path}: every node must have it at that place")
        option, equals, _ = arguments[place].partition("=")
        arguments[place] = f"{option}={there}" if equals and option.startswith("--") else there
    return arguments


def _recipes(arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Where among the arguments recipes are named, and their names."""
    for place, argument in enumerate(arguments):
        if argument in ("--recipe", "-r") and place + 1 < len(arguments):
            yield place + 1, arguments[place + 1]
        elif argument.startswith("--recipe="):
            yield place, argument.partition("=")[2]


def note_local_places(arguments: Sequence[str], note: Callable[[str], None]) -> None:
    """Say which arguments are paths: another machine may have nothing there, or something else."""
    recipes = {name for _, name in _recipes(arguments)}
    for argument in arguments[1:]:
        if (
            "/" in argument
            and not argument.startswith("-")
            and argument not in recipes
            and is_local(argument)
        ):
            note(f"{argument} is a path, not a URL: every node must see the same folder there")


def package(recipe: Path, folder: Path) -> list[str]:
    """Copy a recipe and what it refers to into an empty folder; returns the copied names.

    Taken are: modules and packages that lie beside the recipe, from those that its `use` lines name through all that
    these import, and what its arguments name as `./x`. Raises RecipeError for a recipe that cannot be used, for
    `../x`, which would lie outside of the folder, and for more bytes than a job may send.
    """
    load_recipe(recipe)  # what is wrong with it is better said here than by a job
    home = recipe.absolute().parent
    settings = load(text_of(recipe))
    wanted = {recipe.name, *_code(home, [use.partition(":")[0] for use in _values(settings, "use")])}
    for value in _texts(settings):
        if value.startswith("../"):
            raise RecipeError(
                f"{recipe.name} names {value!r}, which lies outside of the recipe's folder",
                "send a folder that holds both with --working-dir, or name a place that every node can read",
            )
        if value.startswith("./") and (home / value).exists():
            wanted.add(str(Path(value)))
    size = sum(path.stat().st_size for name in wanted for path in _files(home / name))
    if size > LARGEST:
        raise RecipeError(
            f"{recipe.name} and what lies beside it are {size >> 20:,} MiB; a job can send {LARGEST >> 20} MiB",
            "name large weights by a URL or by a path that every node can read",
        )
    for name in sorted(wanted):
        for path in _files(home / name):
            target = folder / path.relative_to(home)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return sorted(wanted)


def paths_of_this_machine(recipe: Path) -> list[str]:
    """Arguments that name a file of this machine which does not travel: every node must have it at that place."""
    try:
        settings = load(text_of(recipe), recipe.name)
    except ValueError as error:
        raise RecipeError(f"{recipe} is not valid YAML: {error}", "mend the file") from error
    texts = _texts(settings)
    return sorted({t for t in texts if "/" in t and not t.startswith(("./", "../")) and _exists(t)})


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _values(settings: Any, key: str) -> Iterator[str]:
    """All texts under a key, at any depth."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(settings, list):
        for value in settings:
            yield from _values(value, key)


def _texts(settings: Any) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, dict | list):
        for value in settings.values() if isinstance(settings, dict) else settings:
            yield from _texts(value)


def _code(home: Path, modules: list[str]) -> set[str]:
    """Names in a folder of the modules and packages among these, and of all that they import from it."""
    found: set[str] = set()
    left = [module.partition(".")[0] for module in modules]
    while left:
        first = left.pop()
        name = next((n for n in (f"{first}.py", first) if first and _is_code(home / n)), None)
        if name is None or name in found:
            continue
        found.add(name)
        for path in _files(home / name):
            if path.suffix == ".py":
                left += [module.partition(".")[0] for module in _imports(path)]
    return found


def _is_code(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.glob("*.py")))


def _imports(path: Path) -> Iterator[str]:
    """What a file imports, absolutely; a file that is no Python imports nothing."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (p for p in sorted(path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts)
