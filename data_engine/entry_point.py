"""`module:Name` references of a recipe: read without importing, and imported where they run.

The driver never imports a specialist's module, since that would load torch; what it must know
(does the class exist, which arguments does it take, which version is its code) is read from the
source's syntax tree.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from data_engine.argument_types import misfit
from data_engine.errors import FdeError, MissingPackageError, ModelLoadError, RecipeError, SpecialistError
from data_engine.fetched import fetched


@dataclass(frozen=True)
class Signature:
    """Names of the arguments a class takes; `open` when it also takes any other (`**kwargs`).

    `annotations` are of those that have one, as they are written.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    open: bool = False
    annotations: Mapping[str, ast.expr] = field(default_factory=dict, compare=False)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` - did you mean 'x'?`, or the known words when none is close; empty when nothing is known."""
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f" - did you mean {close[0]!r}?"
    return f" - known: {', '.join(sorted(known))}" if known else ""


def split(use: str) -> tuple[str, str]:
    module, colon, name = use.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise RecipeError(f"use: {use!r} is no reference", "write it as package.module:ClassName")
    return module, name


def find_module(module: str) -> ModuleSpec | None:
    """Where a module lies, or None. Nothing is imported: importlib.util.find_spec would run its packages."""
    found: ModuleSpec | None = None
    place: Sequence[str] | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        specs = (finder.find_spec(name, place) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        found = next((spec for spec in specs if spec is not None), None)
        if found is None:
            return None
        place = found.submodule_search_locations or []
    return found


@lru_cache(maxsize=256)
def _source(module: str) -> Path:
    spec = find_module(module)
    if spec is None or spec.origin is None:
        raise RecipeError(
            f"there is no module {module!r}{_perhaps(module)}",
            "install its package, or put its file beside the recipe",
        )
    return Path(spec.origin)


def _perhaps(module: str) -> str:
    """` - did you mean 'filters.nms'?`, where this project has a module of a like name."""
    known: list[str] = []
    for package in ("filters", "specialists"):
        spec = find_module(package)
        places = (spec and spec.submodule_search_locations) or []
        known += [f"{package}.{found.name}" for found in pkgutil.iter_modules(places)]
    close = get_close_matches(module, known, n=1)
    return f" - did you mean {close[0]!r}?" if close else ""


@lru_cache(maxsize=256)
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"{path.name} is not valid Python: {error}", "mend that file") from error


def _definition(module: str, name: str, depth: int = 4) -> ast.ClassDef | ast.FunctionDef | None:
    """The class or function, also where the module only re-exports it; None when that cannot be read."""
    path = _source(module)
    if path.suffix != ".py":
        return None
    names: list[str] = []
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
            if node.name == name:
                return node
        elif isinstance(node, ast.ImportFrom) and depth:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    base = module if path.name == "__init__.py" else module.rpartition(".")[0]
                    for _ in range(node.level - 1):
                        base = base.rpartition(".")[0]
                    target = node.module or ""
                    if node.level:
                        target = f"{base}.{target}".strip(".")
                    return _definition(target, alias.name, depth - 1)
        elif isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return None
    raise RecipeError(
        f"{module} has no {name!r}{did_you_mean(name, [one for one in names if not one.startswith('_')])}",
        "correct the recipe's `use` line",
    )


def _arguments(function: ast.FunctionDef, skip: int) -> Signature:
    a = function.args
    positional = [arg.arg for arg in (*a.posonlyargs, *a.args)][skip:]
    defaults = len(a.defaults)
    required = positional[: len(positional) - defaults]
    optional = positional[len(positional) - defaults :]
    for arg, default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        (required if default is None else optional).append(arg.arg)
    annotated = {
        arg.arg: arg.annotation for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs) if arg.annotation
    }
    return Signature(tuple(required), tuple(optional), a.kwarg is not None, annotated)


def _is_dataclass(node: ast.ClassDef) -> bool:
    for decorator in node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        if (isinstance(target, ast.Name) and target.id == "dataclass") or (
            isinstance(target, ast.Attribute) and target.attr == "dataclass"
        ):
            return True
    return False


def signature(use: str) -> Signature | None:
    """The constructor's arguments, read from the source. None when only importing could tell."""
    node = _definition(*split(use))
    if node is None:
        return None
    if isinstance(node, ast.FunctionDef):
        return _arguments(node, skip=0)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _arguments(item, skip=1)
    if _is_dataclass(node):
        fields = [s for s in node.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)]
        fields = [s for s in fields if "ClassVar" not in ast.dump(s.annotation)]
        if any(base for base in node.bases):
            return None
        required = tuple(s.target.id for s in fields if s.value is None)  # type: ignore[union-attr]
        optional = tuple(s.target.id for s in fields if s.value is not None)  # type: ignore[union-attr]
        annotated = {s.target.id: s.annotation for s in fields}  # type: ignore[union-attr]
        return Signature(required, optional, annotations=annotated)
    return None if node.bases else Signature((), ())


def check_arguments(use: str, args: Mapping[str, Any], where: str, filled: Sequence[str] = ()) -> None:
    """Raises RecipeError for an argument that the class does not take, a missing one, or one of another type.

    `filled` are those that are given later.
    """
    takes = signature(use)
    if takes is None:
        return
    known = (*takes.required, *takes.optional)
    for name in [*args, *filled]:
        if name not in known and not takes.open:
            raise RecipeError(
                f"{where}: {use} takes no argument {name!r}{did_you_mean(name, known)}",
                "correct the recipe's `args`",
            )
    missing = [name for name in takes.required if name not in args and name not in filled]
    if missing:
        raise RecipeError(
            f"{where}: {use} needs the argument {missing[0]!r}", "add it under the recipe's `args`"
        )
    for name, value in args.items():
        wrong = misfit(name, value, takes.annotations[name]) if name in takes.annotations else None
        if wrong is not None:
            raise RecipeError(f"{where}: {wrong.problem}", wrong.hint)


def code_version(use: str) -> str:
    """What a fingerprint knows of the code: the module's `VERSION` where it has one, else its source.

    A module that declares `VERSION = n` says itself when its output changes, so that an upgrade that
    only tidies does not re-annotate a million images. Without it every edit counts.
    """
    module, name = split(use)
    path = _source(module)
    if path.suffix == ".py":
        for node in _tree(path).body:
            if (
                isinstance(node, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == "VERSION" for t in node.targets)
                and isinstance(node.value, ast.Constant)
            ):
                return f"{module}:{name} version {node.value.value!r}"
    return f"{module}:{name} source {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def load(use: str, args: dict[str, Any], where: str) -> Any:
    """Import and construct; what an argument names on a store is fetched first. Raises SpecialistError (or one below it) with one line that says why."""
    module, name = split(use)
    try:
        made = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise RecipeError(f"{where}: there is no module {module!r}", "install its package") from error
        raise MissingPackageError(
            f"{where}: {use} needs the package {error.name!r}",
            f"install it, for example with: pip install {error.name}",
        ) from error
    except AttributeError as error:
        raise RecipeError(f"{where}: {module} has no {name!r}", "correct the recipe's `use` line") from error
    try:
        return made(**fetched(args))
    except FdeError:
        raise
    except FileNotFoundError as error:
        raise ModelLoadError(f"{where}: {error}", "check the path of the weights in the recipe") from error
    except TypeError as error:
        raise SpecialistError(
            f"{where}: {use} cannot be built: {error}", "check the recipe's `args`"
        ) from error
    except Exception as error:
        raise ModelLoadError(
            f"{where}: {use} cannot be built: {type(error).__name__}: {' '.join(str(error).split())[:500]}",
            "check its weights and args; `fde recipe check` shows what it is given",
        ) from error


def add_import_folder(folder: str) -> None:
    """Let modules that lie beside a recipe be imported, after everything that is installed."""
    if folder and folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
