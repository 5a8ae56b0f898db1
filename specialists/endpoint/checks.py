"""Whether an argument of a recipe is what it must be; each function raises RecipeError that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(f"{name} is {value!r}{did_you_mean(str(value), known)}", f"correct {name}")


def a_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise RecipeError(f"{name} must be a text", f"write {name} as a string that is not empty")


def number(
    name: str, value: Any, low: float, high: float, *, whole: bool = False, optional: bool = False
) -> None:
    if value is None and optional:
        return
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        raise RecipeError(
            f"{name} is {value!r}", f"it must be a {'whole ' if whole else ''}number in {low:g}..{high:g}"
        )


def words(name: str, value: str) -> str:
    """The value itself, or what the `.txt` file that it names holds."""
    a_text(name, value)
    if "\n" in value or not value.endswith(".txt"):
        return value
    try:
        return Path(value).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the {name} {value}: {error}", "check the path") from error
