"""Values of a recipe against the annotations of the classes that they are given to."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.argument_types import misfit
from data_engine.entry_point import check_arguments
from data_engine.errors import RecipeError


def read(annotation: str) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(max_size=5)
_SIMPLE: list[tuple[str, st.SearchStrategy[Any]]] = [
    ("int", st.integers()),
    ("float", _FLOATS | st.integers(-(10**9), 10**9)),
    ("str", _TEXTS),
    ("Path", _TEXTS),
    ("bool", st.booleans()),
    ("None", st.none()),
    ("Literal['a', 2]", st.sampled_from(["a", 2])),
    ("Threshold", _TEXTS | st.none() | st.lists(st.integers(), max_size=2)),
    ("np.float64", _FLOATS),
]


def _of(inner: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    """An annotation made of one that is known, with a value that fits."""
    lists = st.sampled_from(["list[{}]", "Sequence[{}]", "set[{}]", "tuple[{}, ...]", "Iterable[{}]"])
    return st.one_of(
        st.builds(lambda one, form, n: (form.format(one[0]), [one[1]] * n), inner, lists, st.integers(0, 3)),
        st.builds(lambda one, form: (form.format(one[0]), {"k": one[1]}), inner, st.sampled_from(["dict[str, {}]", "Mapping[str, {}]"])),
        st.builds(lambda a, b: (f"tuple[{a[0]}, {b[0]}]", [a[1], b[1]]), inner, inner),
        st.builds(lambda a, b: (f"{a[0]} | {b[0]}", a[1]), inner, inner),
        st.builds(lambda a, b: (f"{a[0]} | {b[0]}", b[1]), inner, inner),
        st.builds(lambda a: (f"Optional[{a[0]}]", None), inner),
        st.builds(lambda a: (repr(a[0]), a[1]), inner),
    )  # fmt: skip


_FITTING = st.recursive(
    st.one_of([st.tuples(st.just(name), values) for name, values in _SIMPLE]), _of, max_leaves=5
)


@given(_FITTING)
def test_what_fits_is_let_through(one: tuple[str, Any]) -> None:
    annotation, value = one
    assert misfit("x", value, read(annotation)) is None


@given(_FITTING.filter(lambda one: "Threshold" not in one[0] and "np." not in one[0]))
def test_where_all_of_an_annotation_is_known_what_no_yaml_holds_does_not_fit(one: tuple[str, Any]) -> None:
    assert misfit("x", object(), read(one[0])) is not None


@pytest.mark.parametrize(
    ("annotation", "value", "problem", "hint"),
    [
        ("int", "ten", "x is 'ten'; it should be a valid integer", "without quotes"),
        ("int", 1.5, "x is 1.5; it should be a valid integer", "`args`"),
        ("int", True, "x is True; it should be a valid integer", "`args`"),
        ("float", "1e-3", "x is '1e-3'; it should be a valid number", "1.0e-3"),
        ("float | None", "1e-3", "x is '1e-3'; it should be a valid number", "1.0e-3"),
        ("str", 3, "x is 3; it should be a valid string", "in quotes"),
        ("list[str]", "cup", "x is 'cup'; it should be a valid list", "[cup]"),
        ("Sequence[str] | None", ["yes", False], "x[1] is False; it should be a valid string", "in quotes"),
        ("str | list[str]", ["cup", 7], "x[1] is 7; it should be a valid string", "in quotes"),
        ("str | list[str]", 7, "x is 7; it should be a valid string or should be a valid list", "in quotes"),
        ("dict[str, float]", {"cup": "a"}, "x.cup is 'a'; it should be a valid number", "without quotes"),
        ("dict[str, dict[str, int]]", {"a": {"b": None}}, "x.a.b is None; it should be a valid integer", ""),
        ("tuple[int, int]", [1], "x is [1]; ", "`args`"),
        ("Literal['auto', 'never']", "alway", "x is 'alway'; it should be 'auto' or 'never'", "`args`"),
    ],
)
def test_what_does_not_fit_is_told_where_it_stands(
    annotation: str, value: Any, problem: str, hint: str
) -> None:
    found = misfit("x", value, read(annotation))
    assert found is not None and found.problem.startswith(problem) and hint in found.hint


def test_a_long_value_is_shown_short() -> None:
    found = misfit("x", "long " * 1000, read("int"))
    assert found is not None and len(found.problem) < 150


def test_a_class_is_not_imported_to_know_its_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "annotated.py").write_text(
        "raise RuntimeError('imported')\n"
        "from dataclasses import dataclass\n"
        "class A:\n    def __init__(self, size: int, *, name: 'str | None' = None, other=1): ...\n"
        "@dataclass\nclass B:\n    size: int = 1\n"
        "def make(size: int): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    check_arguments("annotated:A", {"name": None, "other": "anything"}, "here", filled=["size"])
    for use in ("annotated:A", "annotated:B", "annotated:make"):
        check_arguments(use, {"size": 3}, "here")
        with pytest.raises(RecipeError, match="^here: size is '3'; it should be a valid integer"):
            check_arguments(use, {"size": "3"}, "here")
