"""The command line: what each command prints, its exit codes, and one line plus a hint for every mistake."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import PIL.Image
import pyarrow.parquet as pq
import pytest

from data_engine.recipe import load_recipe
from data_engine.scenes.write import make_scenes
from pipelines.cli import main
from tests.toy_sources import write_pictures

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
name: toy
specialists:
  numbers: {use: "tests.toy_specialists:Numbers"}
filters:
  low: {use: "filters.score:MinimumScore", args: {minimum: 0.6}, where: {kind: text}}
"""


@pytest.fixture
def fde(capfd, monkeypatch):
    """Run `fde ARGS` in this process: exit code, standard output, standard error."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fde", *map(str, args)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else 0), out, err

    return call


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Six hundred pictures of which one is corrupt, a place for a data set, and a recipe."""
    write_pictures(tmp_path / "pictures", 600, (8, 8))
    corrupt = tmp_path / "pictures" / "00123.png"
    corrupt.write_bytes(corrupt.read_bytes()[:60])
    (tmp_path / "toy.yaml").write_text(RECIPE)
    return tmp_path / "pictures", tmp_path / "ds", tmp_path / "toy.yaml"


def test_600_images_of_which_one_is_corrupt(fde, toy):
    pictures, dataset, recipe = toy
    code, out, err = fde("annotate", pictures, dataset, "--recipe", recipe, "--runner", "inline")
    assert code == 0, err
    assert "ingested 599 images in 1 shard," in out
    assert re.search(r"could not use 1: 1 (truncated|corrupt); see: fde sql", out)
    assert "numbers: 1,198 annotations, 0 failures (1 shard done, 0 already there)" in out
    assert "1 failure on 1 image;" in out
    _, out, _ = fde(
        "sql", dataset, "SELECT (SELECT count(*) FROM texts) AS t, stage, key FROM failures", "-f", "json"
    )
    assert json.loads(out) == {"t": 599, "stage": "ingest", "key": "00123.png"}


def test_toy_models_on_pictures_that_they_do_not_know_are_remarked_on(fde, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("pipelines.cli.chosen_recipe", lambda name: load_recipe(tmp_path / "toy.yaml"))
    (tmp_path / "toy.yaml").write_text(RECIPE)
    write_pictures(tmp_path / "pictures", 2, (8, 8))
    make_scenes(tmp_path / "drawn", 2, seed=0, size=(128, 96))
    for source, remarked in (("pictures", True), ("drawn", False)):
        caplog.clear()
        code, _, _ = fde("annotate", tmp_path / source, tmp_path / f"{source}.ds", "--runner", "inline")
        assert code == 0
        assert ("toy models, which know drawn scenes alone" in caplog.text) == remarked


def test_annotate_again_does_nothing_and_filter_prints_the_funnel(fde, toy):
    pictures, dataset, recipe = toy
    fde("annotate", pictures, dataset, "--recipe", recipe, "--runner", "inline")
    code, out, _ = fde("annotate", dataset, "--recipe", recipe)
    assert code == 0 and "numbers: nothing to do" in out
    code, out, _ = fde("filter", dataset, "--recipe", recipe)
    assert code == 0
    assert [line.strip() for line in out.splitlines()] == [
        "1,198 annotations of 599 images",
        "dropped by low: 599  50.0 %, left 599",
        "dropped by parent: 599  50.0 %, left 0",
        "kept: 0",
        "images of which nothing is kept: 599",
    ]
    code, out, _ = fde("filter", dataset, "--recipe", recipe, "--explain")
    assert code == 0 and out.startswith("judged before: 1 of 1 shard\n")
    assert out.count("  numbers text brief: number ") == out.count("  numbers phrase: ") == 5
    shown = out.splitlines()
    assert shown.index("low:") < shown.index("parent:")
    code, out, _ = fde("filter", dataset, "--recipe", recipe, "--sample", 0.1)
    assert code == 0 and out.startswith("a sample of 1 of 1 shard; nothing is written\n")
    assert fde("filter", dataset, "--recipe", recipe, "--sample", 0.1, "--explain")[0] == 2


def test_sql_writes_every_format(fde, toy, tmp_path):
    pictures, dataset, _ = toy
    fde("ingest", pictures, dataset)
    query = "SELECT width, height FROM images LIMIT 2"
    assert "width" in fde("sql", dataset, query)[1]
    assert fde("sql", dataset, query, "-f", "csv")[1] == '"width","height"\n8,8\n8,8\n'
    assert fde("sql", dataset, query, "-f", "json")[1] == '{"width": 8, "height": 8}\n' * 2
    fde("sql", dataset, query, "-f", "parquet", "-o", tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 2


def test_sql_takes_the_format_from_the_name_of_the_output(fde, toy, tmp_path):
    pictures, dataset, _ = toy
    fde("ingest", pictures, dataset)
    query = "SELECT width, height FROM images LIMIT 2"
    rows = [{"width": 8, "height": 8}] * 2
    new = tmp_path / "new" / "folder"
    assert fde("sql", dataset, query, "-o", new / "x.CSV")[0] == 0
    assert (new / "x.CSV").read_text() == '"width","height"\n8,8\n8,8\n'
    for name in ("x.json", "x.jsonl"):
        assert fde("sql", dataset, query, "-o", new / name)[0] == 0
        assert [json.loads(line) for line in (new / name).read_text().splitlines()] == rows
    fde("sql", dataset, query, "-o", new / "x.parquet")
    assert pq.read_table(new / "x.parquet").to_pylist() == rows
    fde("sql", dataset, query, "-f", "json", "-o", new / "x.csv")
    assert [json.loads(line) for line in (new / "x.csv").read_text().splitlines()] == rows
    for wrong in (["-o", new / "x.txt"], ["-o", new / "x"], ["-f", "table", "-o", new / "x.csv"]):
        code, _, err = fde("sql", dataset, query, *wrong)
        assert code == 3 and len(err.splitlines()) == 2 and "csv" in err, err
    assert fde("sql", dataset, query, "-o", new)[0] == 3
    assert fde("sql", dataset, query, "-f", "csv", "-o", new)[0] == 4
    assert sorted(p.name for p in new.iterdir()) == ["x.CSV", "x.csv", "x.json", "x.jsonl", "x.parquet"]


def broken(tmp_path: Path, case: str) -> tuple[list[str], int, str]:
    """A mistake, the exit code it must end with, and words that its one line must hold."""
    ds, nothing = str(tmp_path / "ds"), str(tmp_path / "nothing")
    recipe = tmp_path / "bad.yaml"
    if case == "unknown command":
        return ["anotate"], 2, "No such command"
    if case == "no such source":
        return ["ingest", nothing, ds], 3, "nothing"
    if case == "no image":
        (tmp_path / "empty").mkdir()
        return ["ingest", str(tmp_path / "empty"), ds], 3, "empty"
    if case == "unknown format":
        write_pictures(tmp_path / "p", 1)
        return ["ingest", str(tmp_path / "p"), ds, "--format", "cocoo"], 3, "did you mean 'coco'"
    if case == "no data set":
        return ["sql", nothing, "SELECT 1"], 3, "is not a data set"
    if case == "newer format":
        (tmp_path / "ds").mkdir()
        (tmp_path / "ds" / "dataset.json").write_text('{"format": 99}')
        return ["sql", ds, "SELECT 1"], 3, "has format 99"
    if case == "damaged data set":
        (tmp_path / "ds").mkdir()
        (tmp_path / "ds" / "dataset.json").write_text("{")
        return ["sql", ds, "SELECT 1"], 3, "damaged"
    write_pictures(tmp_path / "p", 3)
    if case == "unknown key":
        recipe.write_text(RECIPE.replace("use:", "uses:", 1))
        return ["recipe", "check", str(recipe)], 2, "did you mean 'use'"
    if case == "unknown argument":
        recipe.write_text(RECIPE.replace("minimum:", "minimun:"))
        return ["annotate", str(tmp_path / "p"), ds, "-r", str(recipe)], 2, "did you mean 'minimum'"
    if case == "unknown recipe":
        return ["recipe", "show", "scene"], 2, "did you mean 'scenes'"
    if case == "missing weights":
        recipe.write_text(
            'name: x\nspecialists:\n  a: {use: "tests.toy_specialists:CannotLoad", args: {weights: gone.pt}}\n'
        )
        return ["annotate", str(tmp_path / "p"), ds, "-r", str(recipe), "--runner", "inline"], 5, "gone.pt"
    if case == "wrong sql":
        return ["sql", ds, "SELEC 1"], 3, "syntax error"
    if case == "unknown runner":
        return ["annotate", str(tmp_path / "p"), ds, "--runner", "local"], 2, "none of auto, ray, inline"
    raise ValueError(case)


@pytest.mark.parametrize(
    "case",
    [
        "unknown command", "no such source", "no image", "unknown format", "no data set", "newer format",
        "damaged data set", "unknown key", "unknown argument", "unknown recipe", "missing weights", "wrong sql",
        "unknown runner",
    ],
)  # fmt: skip
def test_every_mistake_is_one_line_and_a_hint_with_its_exit_code(fde, tmp_path, case):
    args, expected, words = broken(tmp_path, case)
    if case == "wrong sql":
        fde("ingest", tmp_path / "p", tmp_path / "ds")
    code, _, err = fde(*args)
    assert code == expected and words in err, err
    assert "Traceback" not in err
    if case != "unknown command":
        assert len(err.strip().splitlines()) == 2 and err.startswith("fde: "), err


def test_draw_shows_what_was_said(fde, toy, tmp_path):
    pictures, dataset, recipe = toy
    fde("annotate", pictures, dataset, "--recipe", recipe, "--runner", "inline")
    code, out, _ = fde("draw", dataset, tmp_path / "x.png", "--images", "4")
    assert code == 0 and "4 images" in out
    with PIL.Image.open(tmp_path / "x.png") as picture:
        assert picture.width > 4 * 8
    assert fde("draw", dataset, tmp_path / "new" / "x.JPG", "--images", "1")[0] == 0
    with PIL.Image.open(tmp_path / "new" / "x.JPG") as picture:
        assert picture.format == "JPEG"
    for name in ("x.foo", "x", "x.xbm"):
        code, _, err = fde("draw", dataset, tmp_path / "new" / name)
        assert code == 4 and "figure.png" in err and len(err.splitlines()) == 2, err
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.JPG"]
    code, _, err = fde("draw", dataset, tmp_path / "x.png", "--source", "nobody")
    assert code == 3 and "it has: numbers" in err
