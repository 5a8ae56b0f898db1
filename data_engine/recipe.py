"""Recipes: YAML that says what to annotate and filter with. Flags say where and how wide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_engine import bounded_yaml
from data_engine.dataset import NAME
from data_engine.entry_point import add_import_folder, check_arguments, did_you_mean, find_module
from data_engine.errors import RecipeError
from data_engine.literal_secrets import HINT, secrets_in
from data_engine.recipe_parts import FilterPart, Part, SpecialistPart, Where
from data_engine.refine_part import RefinePart, known_keys

__all__ = [
    "RESERVED",
    "FilterPart",
    "Recipe",
    "RefinePart",
    "SpecialistPart",
    "Where",
    "load_recipe",
    "read_recipe",
]

RESERVED = ("human", "alt_text", "truth", "ingest")
"""Sources that ingest writes: no specialist may take their folder."""


class Recipe(Part):
    """A whole recipe. Specialists run in the order that `needs` asks for, filters in the order written."""

    name: str
    description: str = ""
    specialists: dict[str, SpecialistPart] = Field(default_factory=dict)
    filters: dict[str, FilterPart] = Field(default_factory=dict)
    refine: RefinePart | None = None
    folder: str = Field(default="", exclude=True)
    """Where the recipe's file lies: modules beside it can be used. Not part of the YAML."""

    def ordered(self) -> list[str]:
        """Names of the specialists, each after those that it needs. Raises RecipeError on a circle."""
        done: list[str] = []
        left = dict(self.specialists)
        while left:
            ready = [n for n, part in left.items() if not any(need in left for need in part.needs)]
            if not ready:
                raise RecipeError(
                    f"these specialists need each other in a circle: {', '.join(left)}", "break the circle"
                )
            done += ready
            for name in ready:
                del left[name]
        return done

    def check(self) -> Recipe:
        """Everything that can be known before any work: names, needs, modules, arguments."""
        add_import_folder(self.folder)
        for name, part in self.specialists.items():
            if not NAME.fullmatch(name) or name in RESERVED:
                raise RecipeError(
                    f"{name!r} cannot be a specialist's name",
                    f"use letters, digits, '-', '_' and '.', and none of {', '.join(RESERVED)}",
                )
            for need in part.needs:
                if need not in self.specialists and need not in RESERVED:
                    raise RecipeError(
                        f"specialists.{name} needs {need!r}, which is no specialist of this recipe"
                        f"{did_you_mean(need, list(self.specialists))}",
                        "correct `needs`",
                    )
            check_arguments(part.use, part.args, f"specialists.{name}")
        for name, rule in self.filters.items():
            if not NAME.fullmatch(name) or name == "parent":
                raise RecipeError(
                    f"{name!r} cannot be a filter's name",
                    "use letters, digits, '-', '_' and '.'; 'parent' is taken",
                )
            check_arguments(rule.use, rule.args, f"filters.{name}")
        if self.refine is not None:
            self.refine.check(list(self.specialists), RESERVED)
        self.ordered()
        return self


def read_recipe(text: str, origin: str, folder: str = "") -> Recipe:
    """Parse and check a recipe. `origin` names it in errors. Raises RecipeError."""
    try:
        data = bounded_yaml.load(text, origin)
    except ValueError as error:
        raise RecipeError(f"{origin} is not valid YAML: {error}", "mend the file") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"{origin} holds no recipe", "a recipe is a mapping with name, specialists and filters"
        )
    if "folder" in data:
        raise RecipeError(f"{origin}: unknown key 'folder'", "remove it")
    for place in secrets_in({name: data.get(name) for name in ("specialists", "filters", "refine")}, ""):
        raise RecipeError(
            f"{origin}: {place.lstrip('.')} looks like a secret, which recipes do not hold", HINT
        )
    try:
        recipe = Recipe.model_validate({**data, "folder": folder})
    except ValidationError as error:
        raise _readable(error, origin) from error
    return recipe.model_copy(
        update={"specialists": {n: p.model_copy(update={"args": _resolved(p.args, folder)}) for n, p in recipe.specialists.items()},
                "filters": {n: p.model_copy(update={"args": _resolved(p.args, folder)}) for n, p in recipe.filters.items()},
                "refine": recipe.refine and recipe.refine.mapped(lambda args: _resolved(args, folder))}
    ).check()  # fmt: skip


def load_recipe(path: Path) -> Recipe:
    return read_recipe(text_of(path), str(path), str(path.absolute().parent))


def text_of(path: Path) -> str:
    """The YAML of a recipe's file. Raises RecipeError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError as error:
        raise RecipeError(f"the recipe {path} is a folder", "name the YAML file in it") from error
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8: {error.reason}", "save it as UTF-8") from error


def _resolved(args: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Paths in a recipe: `./x` lies beside the recipe, `package:NAME/x` inside an installed package."""

    def one(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: one(item) for key, item in value.items()}
        if isinstance(value, list):
            return [one(item) for item in value]
        if isinstance(value, str) and value.startswith(("./", "../")) and folder:
            return str((Path(folder) / value).resolve())
        if isinstance(value, str) and value.startswith("package:"):
            package, _, inside = value.removeprefix("package:").partition("/")
            spec = find_module(package)
            if spec is None or not spec.submodule_search_locations or ".." in Path(inside).parts:
                raise RecipeError(
                    f"{value!r}: there is no package {package!r}", "write package:NAME/path/in/it"
                )
            return str(Path(next(iter(spec.submodule_search_locations))) / inside)
        return value

    return {key: one(value) for key, value in args.items()}


_FIELDS = {
    "specialists": tuple(SpecialistPart.model_fields),
    "filters": tuple(FilterPart.model_fields),
    "where": tuple(Where.model_fields),
    "": tuple(name for name in Recipe.model_fields if name != "folder"),
}


def _readable(error: ValidationError, origin: str) -> RecipeError:
    """One complaint of pydantic as one line, with a suggestion for a misspelt key."""
    # A misspelt key also makes the right one missing: the misspelling is what helps.
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *above, key = [str(part) for part in first["loc"]]
        if above[:1] == ["refine"]:
            known = known_keys(above[1:])
        else:
            known = _FIELDS["where" if "where" in above else above[0] if above else ""]
        return RecipeError(
            f"{origin}: unknown key {place!r}{did_you_mean(key, known)}", "correct or remove it"
        )
    if first["type"] == "missing":
        return RecipeError(f"{origin}: {place!r} is missing", "add it")
    return RecipeError(f"{origin}: {place}: {first['msg']}", "correct the value")
