"""`fde scenes`: what is drawn, trained and measured from the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def fde(*arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_scenes_page_shows_commands_that_work(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "scenes.md").read_text()
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    for line in block[1].strip().splitlines():
        words = re.sub(r"\s{2,}# .*", "", line).split()
        assert words[0] == "fde"
        fde(
            *(
                str(tmp_path / word) if word in ("FOLDER", "DATASET", "sheet.png") else word
                for word in words[1:]
            )
        )
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["make", "FOLDER", "--world", "tarket"], "did you mean 'target'"),
        (["train", "detecter", "OUT"], "did you mean 'detector'"),
        (["evaluate", "FOLDER", "--world", "reality"], "no world 'reality'"),
        (["evaluate", "FOLDER", "--runner", "spark"], "none of auto, ray, inline"),
        (["make", "FOLDER", "--size", "320*240"], "is no size"),
        (["make", "FOLDER", "--size", "9x9"], "cannot be 9 x 9 pixels"),
    ],
)
def test_a_wrong_word_is_one_line_and_a_hint(tmp_path: Path, arguments: list[str], meant: str) -> None:
    places = [str(tmp_path / word) if word in ("FOLDER", "OUT") else word for word in arguments]
    said = fde("scenes", *places, code=2).splitlines()
    assert len(said) == 2
    assert meant in said[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["make", "FOLDER", "--seed", "-1"],
        ["train", "scorer", "OUT", "--seed", "-1"],
        ["evaluate", "FOLDER", "--seed", "1000000"],
        ["faults", "FOLDER", "--seed", "-1"],
    ],
)
def test_seeds_that_make_no_scenes_or_training_scenes_are_refused(
    tmp_path: Path, arguments: list[str]
) -> None:
    places = [str(tmp_path / word) if word in ("FOLDER", "OUT") else word for word in arguments]
    assert "--seed" in fde("scenes", *places, code=2)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "output"), [("detector", "f/d.safetensors"), ("scorer", "f"), ("florence2", "f")]
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_drawn(
    tmp_path: Path, model: str, output: str
) -> None:
    (tmp_path / "f").write_text("in the way")
    said = fde("scenes", "train", model, tmp_path / output, code=4).splitlines()
    assert len(said) == 2 and "fde: cannot access" in said[0]
    assert [file.name for file in tmp_path.iterdir()] == ["f"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "output"),
    [("detector", "d.safetensors"), ("segmenter", "s.safetensors"), ("scorer", "c"), ("florence2", "f")],
)
def test_one_command_trains_each_toy_model_and_says_how_good_it_is(
    tmp_path: Path, model: str, output: str
) -> None:
    few = ("--minutes", "0.1", "--threads", "2", "--evaluate-on", "8")
    said = fde("scenes", "train", model, tmp_path / output, *few)
    assert str(tmp_path / output) in said
    assert re.search(r"Quality\(.*=\d", said)
    cards = [*tmp_path.rglob("*.md")]
    assert len(cards) == 1
    assert "unseen" in cards[0].read_text()
