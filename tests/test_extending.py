"""docs/extending.md: its code runs as it stands there, from a folder outside the project, and is as short as it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy_sources import write_pictures

DOC = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("runner", ["inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_the_documented_specialist_and_filter_work_from_a_recipe(tmp_path, runner):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_parts.py").write_text(block("python"))
    (tmp_path / "mine" / "my.yaml").write_text(block("yaml"))
    write_pictures(tmp_path / "PHOTOS", 12)
    fde = shutil.which("fde", path=str(Path(sys.executable).parent)) or "fde"
    said = ""
    for command in block("sh").strip().splitlines():
        args = [fde, *_words(command)[1:]]
        args = ["mine/my.yaml" if a == "my.yaml" else a for a in args]
        if "annotate" in args:
            args += ["--runner", runner]
        if "sql" in args:
            args += ["--format", "csv"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    rows = said.strip().splitlines()[1:]
    assert len(rows) == 12
    assert {'"a dark picture",false,"no-dark"', '"a bright picture",true,'} == set(rows)


def _words(command: str) -> list[str]:
    import shlex

    return shlex.split(command)


def test_each_is_under_twenty_lines():
    classes = re.split(r"\n(?=class )", block("python"))[1:]
    assert [text.split("(")[0].split(":")[0] for text in classes] == ["class Brightness", "class NoWord"]
    assert all(len(text.strip().splitlines()) < 20 for text in classes)
