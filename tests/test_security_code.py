"""Ways by which data becomes code are nowhere in this project's own source: read from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_engine", "specialists", "filters", "pipelines")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

CODE_IN_DATA = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "codeop"}
"""Modules whose formats can name code, or that run it."""

CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "pty.spawn",
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "shutil.unpack_archive",
    "jinja2.Template",
}
"""Calls that nothing here makes. Code that a recipe names is imported (data_engine/entry_point.py), no text is run."""

SAFE_BY = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Calls that are made with this argument, written out, or not at all."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_nothing(name: str, call: ast.Call) -> bool:
    """`exec("")`, written out: it runs nothing, and pipelines/cli.py says what it is for."""
    return name == "exec" and [ast.unparse(one) for one in call.args] == ["''"] and not call.keywords


def keyword(call: ast.Call, name: str) -> object:
    for given in call.keywords:
        if given.arg == name:
            return given.value.value if isinstance(given.value, ast.Constant) else ...
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_data_becomes_code(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & CODE_IN_DATA
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in CODE_IN_DATA
    for name, call in calls(tree):
        assert name not in CALLS or is_nothing(name, call)
        assert not name.endswith((".extractall", ".extract_all"))
        if name in SAFE_BY:
            argument, value = SAFE_BY[name]
            assert keyword(call, argument) is value
        assert keyword(call, "trust_remote_code") in (None, False)
        assert keyword(call, "shell") in (None, False)
        if name.endswith("jinja2.Environment"):
            assert keyword(call, "autoescape") is True
        if name.endswith(".from_pretrained"):
            # Left unsaid, a checkpoint's code is asked for at the terminal.
            assert keyword(call, "trust_remote_code") is False, ast.unparse(call)
        if name.endswith("create_model_from_pretrained"):
            assert keyword(call, "weights_only") is True
