"""What a hostile recipe can do before somebody runs it, and what it cannot hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_engine.errors import FdeError, RecipeError
from data_engine.recipe import load_recipe, read_recipe
from tests.picture_files import put

RECIPE = """
name: hostile
specialists:
  look:
    use: {use}
    args: {args}
"""

MARK = "from pathlib import Path\nPath(__file__).with_name('RAN').touch()\n"


def written(folder: Path, use: str, args: str = "{}") -> Path:
    put(folder, {"recipe.yaml": RECIPE.format(use=use, args=args)})
    return folder / "recipe.yaml"


@pytest.mark.parametrize("args", ["{}", "{model: 'package:trap.inner/weights'}"])
def test_checking_a_recipe_runs_nothing_that_lies_beside_it(
    tmp_path: Path, args: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the packages that its module lies in, which finding it by the library's own way imports."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    source = MARK + "class Look:\n    def __init__(self, model=''): ...\n"
    put(tmp_path, {"trap/__init__.py": MARK, "trap/inner/__init__.py": MARK, "trap/inner/look.py": source})
    recipe = load_recipe(written(tmp_path, "trap.inner.look:Look", args))
    assert recipe.specialists["look"].use == "trap.inner.look:Look"
    assert "trap" not in sys.modules and not list(tmp_path.rglob("RAN"))
    with pytest.raises(RecipeError, match="takes no argument"):
        load_recipe(written(tmp_path, "trap.inner.look:Look", "{other: 1}"))
    with pytest.raises(RecipeError, match="no module"):
        load_recipe(written(tmp_path, "trap.absent.look:Look"))
    assert not list(tmp_path.rglob("RAN"))


def test_a_module_beside_a_recipe_takes_no_installed_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    put(tmp_path, {"specialists/noise.py": MARK, "specialists/__init__.py": MARK})
    load_recipe(written(tmp_path, "specialists.noise:Noise"))
    assert sys.path[-1] == str(tmp_path)


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)


@pytest.mark.parametrize(
    "text",
    [
        "name: laughs\nspecialists:\n  look: {use: 'filters.nms:Nms', args: {x: *a9}}\n",
        "name: &n [*n]\n",
        "name: x\nspecialists: {look: {use: 'filters.nms:Nms', args: &a {x: *a}}}\n",
        "name: " + "[" * 5000,
        "name: x\ndescription: " + "{a: " * 5000 + "1" + "}" * 5000,
        "name: x\ndescription: '" + "x" * (5 << 20) + "'",
    ],
    ids=["laughs", "circle", "circle in args", "unclosed", "deep", "long"],
)
def test_yaml_that_grows_when_it_is_read_is_refused(text: str) -> None:
    before = LAUGHS + "\n" if "*a9" in text else ""
    with pytest.raises(RecipeError) as raised:
        read_recipe(before + text, "hostile.yaml")
    assert raised.value.hint and len(raised.value.message) < 1000


KEYS = ["sk-proj-Zk3v9aQwErTyUiOpAsDfGhJk", "AKIAIOSFODNN7EXAMPLE", "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"]


@pytest.mark.parametrize(
    "args",
    [
        *(f"{{model: '{key}'}}" for key in KEYS),
        "{api_key: plainly-a-secret}",
        "{parameters: {headers: {Authorization: 'Bearer plainly-a-secret'}}}",
        "{options: [{password: plainly-a-secret}]}",
        "{aws_secret_access_key: plainly-a-secret}",
        "{model: 'https://me:plainly-a-secret@host/weights'}",
        "{model: 's3://bucket/weights?secret_key=plainly-a-secret'}",
        "{model: 'https://bucket.host/w?X-Amz-Signature=plainly-a-secret'}",
    ],
)
def test_a_key_written_into_a_recipe_is_refused_and_not_repeated(args: str) -> None:
    """Recipes are written into every shard, every run's record, and the places where people share them."""
    text = RECIPE.format(use="tests.toy_specialists:Numbers", args=args)
    with pytest.raises(RecipeError, match=r"specialists\.look") as raised:
        read_recipe(text, "recipe.yaml")
    shown = raised.value.message + raised.value.hint
    assert "environment" in raised.value.hint
    assert "plainly-a-secret" not in shown and not any(key in shown for key in KEYS)


@pytest.mark.parametrize(
    "args",
    [
        "{api_key_env: OPENAI_API_KEY}",
        "{max_tokens: 400, token: null}",
        "{prompt: 'What is the secret of this picture? password: none'}",
        "{base_url: 'https://host/v1', model: 'hdfs://me@host/weights'}",
        "{model: 'abfs://container@account.dfs.core.windows.net/weights'}",
        "{model: 's3://bucket/w?region=eu-west-1&endpoint_override=host:9000&scheme=http'}",
    ],
)
def test_what_only_sounds_like_a_key_is_taken(args: str) -> None:
    with pytest.raises(FdeError, match="takes no argument"):
        read_recipe(RECIPE.format(use="tests.toy_specialists:Numbers", args=args), "recipe.yaml")


def test_a_recipe_that_is_read_at_a_terminal_hides_nothing(tmp_path: Path) -> None:
    """Whoever reads it before running it sees all of it; where it is copied it stays as it is."""
    hidden = tmp_path / "hidden.yaml"
    hidden.write_text("name: fine\n# \x1b[8m\u202e use: evil:Code\n", encoding="utf-8")
    command = [sys.executable, "-m", "pipelines", "recipe", "show", str(hidden)]
    root = Path(__file__).parents[1]
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(command, cwd=root, stdout=theirs, stderr=subprocess.PIPE)
        shown = os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert b"\\x1b[8m\\u202e use: evil:Code" in shown and b"\x1b" not in shown
    copied = subprocess.run(command, cwd=root, capture_output=True)
    assert copied.stdout == hidden.read_bytes()
