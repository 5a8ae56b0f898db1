"""Whether a recipe's values are what an argument's annotation asks for, told without importing its module.

What an annotation says beyond YAML's values (a class of its module, an alias) is not known here and fits everything:
the class itself must judge then.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union

from pydantic import Strict, TypeAdapter, ValidationError

_PLAIN: Mapping[str, Any] = {
    "int": Annotated[int, Strict()],
    "float": Annotated[float, Strict()],  # a whole number is one too
    "str": Annotated[str, Strict()],
    "Path": Annotated[str, Strict()],
    "bool": Annotated[bool, Strict()],
    "list": list[Any],
    "dict": dict[Any, Any],
}
"""What stands in YAML for a type by its name."""

_GENERIC: Mapping[str, Any] = {"list": list, "dict": dict, "tuple": tuple, "union": Union, "literal": Literal}
"""Types that are put together while this runs, which type checkers do not follow."""

_LISTS = frozenset({"list", "set", "frozenset", "Sequence", "Collection", "Iterable"})
_MAPPINGS = frozenset({"dict", "Mapping"})


class Misfit(NamedTuple):
    """The first value that does not fit, and how to write it instead."""

    problem: str
    hint: str


def misfit(name: str, value: Any, annotation: ast.expr) -> Misfit | None:
    """What is wrong with the value given for an argument; None where it fits."""
    try:
        TypeAdapter(_type_of(annotation)).validate_python(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    else:
        return None
    places = [_place(name, value, one["loc"]) for one in errors]
    # Of a list that is wrong in one place that place is told, rather than all that might have stood there.
    place, wrong = max(places, key=lambda found: len(found[0]))
    wanted = [
        one["msg"].removeprefix("Input ")
        for one, found in zip(errors, places, strict=True)
        if found[0] == place
    ]
    shown = repr(wrong) if len(repr(wrong)) <= 80 else f"{wrong!r:.77}..."
    return Misfit(f"{place} is {shown}; it {' or '.join(dict.fromkeys(wanted))}", _hint(wrong, wanted))


def _type_of(annotation: ast.expr) -> Any:
    match annotation:
        case ast.Constant(value=str(text)):
            try:
                return _type_of(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return Any
        case ast.Constant(value=None):
            return None
        case ast.Name(id=name):
            return _PLAIN.get(
                "list" if name in _LISTS or name == "tuple" else "dict" if name in _MAPPINGS else name, Any
            )
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _GENERIC["union"][_type_of(left), _type_of(right)]
        case ast.Subscript(value=ast.Name(id=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _parametrised(name, parts)
    return Any


def _parametrised(name: str, parts: list[ast.expr]) -> Any:
    if name == "Literal":
        known = tuple(part.value for part in parts if isinstance(part, ast.Constant))
        return _GENERIC["literal"][known] if len(known) == len(parts) else Any
    types = [_type_of(part) for part in parts]
    if name == "Optional":
        return _GENERIC["union"][types[0], None]
    if name == "Union":
        return _GENERIC["union"][tuple(types)]
    if name in _LISTS:
        return _GENERIC["list"][types[0]]
    if name in _MAPPINGS and len(types) == 2:
        return _GENERIC["dict"][types[0], types[1]]
    if name == "tuple":
        open_end = isinstance(parts[-1], ast.Constant) and parts[-1].value is ...
        return _GENERIC["list"][types[0]] if open_end else _GENERIC["tuple"][tuple(types)]
    return Any


def _place(name: str, value: Any, steps: tuple[int | str, ...]) -> tuple[str, Any]:
    """Where an error lies (`classes[1]`), and the value there. Among pydantic's steps are names of types too."""
    for step in steps:
        if isinstance(value, list) and isinstance(step, int) and step < len(value):
            name, value = f"{name}[{step}]", value[step]
        elif isinstance(value, dict) and step in value:
            name, value = f"{name}.{step}", value[step]
    return name, value


def _hint(value: Any, wanted: list[str]) -> str:
    if isinstance(value, str) and any("integer" in one or "number" in one for one in wanted):
        return "write a number without quotes (1e-3 is a text in YAML, 1.0e-3 a number)"
    if isinstance(value, str) and any("list" in one for one in wanted):
        return (
            f"write it as a list: [{value}]" if len(value) <= 40 else "write it as a list, in square brackets"
        )
    if not isinstance(value, str) and any("string" in one for one in wanted):
        return "write it in quotes"
    return "correct the recipe's `args`"
