"""README.md: every command that it shows is run here, in its order, and what it says of the demo is what the demo says."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
import yaml

from tests import toy_florence2, toy_grounding_dino

pytest.importorskip("open_clip")

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [re.sub(r"\s{2,}# .*", "", line) for block in blocks for line in block.strip().splitlines()]


def with_toys(recipe: Path, folder: Path) -> None:
    """The recipe as written, with a toy checkpoint in place of each name on a hub."""
    from tests.test_scorer import save_toy_clip

    written = yaml.safe_load(recipe.read_text())
    args = {name: part.setdefault("args", {}) for name, part in written["specialists"].items()}
    args["florence2"]["model"] = str(toy_florence2.overfitted(folder.parent / "florence2_overfitted"))
    args["grounding"] |= {
        "model": str(toy_grounding_dino.checkpoint(folder)),
        "box_threshold": 0.01,
        "text_threshold": 0.01,
    }
    args["scorer"]["pretrained"] = str(save_toy_clip(folder))
    args["scorer"].pop("model")
    args["detector"]["weights"] = str(ROOT / "specialists" / "weights" / "scenes-detector.safetensors")
    recipe.write_text(yaml.safe_dump(written, sort_keys=False))


def test_every_command_works_in_the_order_shown(tmp_path, tmp_path_factory):
    (tmp_path / "PHOTOS").mkdir()
    for number, pixels in enumerate(toy_florence2.pictures()):
        PIL.Image.fromarray(pixels).save(tmp_path / "PHOTOS" / f"{number}.png")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shown = {}
    for command in commands():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), (
                command
            )
            continue
        if command.startswith("pip install"):
            (extras,) = re.findall(r"'\.\[(.*)\]'", command)
            known = importlib.metadata.metadata("florence-data-engine").get_all("Provides-Extra")
            assert set(extras.split(",")) <= set(known)
            continue
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        shown[command] = done.stdout
        if "> photos.yaml" in command:
            with_toys(tmp_path / "photos.yaml", tmp_path_factory.mktemp("toys"))
    # All of the recipe's specialists had something to say, and the hub's place was taken by toys alone.
    table = next(out for command, out in shown.items() if "GROUP BY ALL ORDER BY ALL" in command)
    for source in ("florence2", "scorer"):
        assert source in table
    assert (tmp_path / "photos.png").is_file() and (tmp_path / "ocr.parquet").is_file()
    triplets = next(out for command, out in shown.items() if "FROM triplets" in command)
    assert "a red square" in triplets


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "demo", "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert without_seconds(done.stdout.strip()) in without_seconds(README)
    assert (tmp_path / "demo" / "scenes.png").is_file()


def without_seconds(text: str) -> str:
    return re.sub(r"in \d+\.\d s", "in N s", text)


def test_a_small_demo_ends_with_its_quality(tmp_path):
    """What `make demo` runs, with fewer scenes."""
    assert re.search(r"^demo: .*\n\t\.venv/bin/fde demo$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "demo", str(tmp_path / "demo"), "--count", "12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.findall(
        r"^ +(?:(\w+) +)(boxes: AP50|masks: AP50|brief texts: .*?true) +(\d\.\d+)$", done.stdout, re.M
    )
    figures = {(name, measure): float(value) for name, measure, value in told}
    for name in ("detector", "segmenter"):
        assert figures[name, "boxes: AP50"] > 0.8, done.stdout
    assert figures["segmenter", "masks: AP50"] > 0.8
    assert ("florence2", "brief texts: noun phrases that are true") in figures
    asked = re.findall(r"^  fde sql (\S+) \"(.*)\"$", done.stdout, re.MULTILINE)
    assert len(asked) == 2
    for url, query in asked:
        answer = subprocess.run(
            [sys.executable, "-m", "pipelines", "sql", url, query, "-f", "json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(answer.stdout.splitlines()[0])


def test_the_files_that_it_names_exist():
    for link in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / link).is_file(), link
