"""`fde status`: what it tells of work that goes on, stopped, or never began, from the data set alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import IncompleteError, ModelLoadError
from data_engine.recipe import Recipe
from pipelines.cli import main
from pipelines.status import lines, read_status
from tests.test_live import dataset, run, write_live  # noqa: F401 - a fixture
from tests.test_runner_inline import part, recipe


def counts(found) -> dict[str, tuple[int, int, int, int]]:
    return {stage.name: (stage.done, stage.running, stage.failed, stage.left) for stage in found.stages}


def test_without_a_recipe_it_tells_what_is_there(dataset):  # noqa: F811
    run(dataset, recipe(numbers=part("Numbers"), fails=part("Fails", on=[1])))
    (Path(dataset.url) / "annotations/numbers/00001.parquet").unlink()
    found = read_status(dataset)
    assert counts(found) == {"numbers": (2, 0, 0, 1), "fails": (3, 0, 0, 0)}
    assert {stage.name: stage.shards_with_failures for stage in found.stages} == {"numbers": 0, "fails": 1}
    assert found.drivers == [] and {row["status"] for row in found.runs} == {"done"}
    text = "\n".join(lines(found))
    assert "12 images in 3 shards" in text and "annotate with toy by " in text and "CPU-hours" in text


def test_with_a_recipe_it_tells_what_has_not_begun_and_what_is_stale(dataset):  # noqa: F811
    run(dataset, recipe(numbers=part("Numbers")))
    changed = recipe(numbers=part("Numbers", word="count"), other=part("Same"))
    found = read_status(dataset, changed)
    assert counts(found) == {"numbers": (0, 0, 0, 3), "other": (0, 0, 0, 3)}
    assert [stage.stale for stage in found.stages] == [3, 0]


def test_a_living_driver_tells_more_than_the_files(dataset):  # noqa: F811
    """It redoes what is stale: files that are there are not all done."""
    run(dataset, recipe(numbers=part("Numbers")))
    write_live(dataset, "r1")
    write_live(dataset, "r2", age=3600)
    found = read_status(dataset)
    assert counts(found) == {"numbers": (1, 1, 0, 2)}
    assert found.stages[0].images_per_s == 2.0 and found.stages[0].eta == 4.0
    text = "\n".join(lines(found))
    assert "driver lives: r1, annotate with toy by somebody@elsewhere (process 7), last seen 0:00:0" in text
    assert "driver gone: r2" in text


def test_units_that_failed_are_told_until_they_are_done(dataset):  # noqa: F811
    chosen = recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",)))
    images = Path(dataset.url) / "images/00001.parquet"
    sound = images.read_bytes()
    images.write_bytes(sound[:50])
    with pytest.raises(IncompleteError):
        run(dataset, chosen)
    assert counts(read_status(dataset)) == {"numbers": (2, 0, 1, 0), "echo": (2, 0, 1, 0)}
    images.write_bytes(sound)
    run(dataset, chosen)
    assert counts(read_status(dataset)) == {"numbers": (3, 0, 0, 0), "echo": (3, 0, 0, 0)}


def test_a_stage_without_shards_that_later_runs_no_longer_name_is_not_left(dataset):  # noqa: F811
    for _ in range(2):
        with pytest.raises(ModelLoadError):
            run(dataset, recipe(numbers=part("Numbers"), typo=part("CannotLoad", weights="x")))
        assert counts(read_status(dataset))["typo"] == (0, 0, 0, 3)
    run(dataset, recipe(numbers=part("Numbers", word="other")))
    assert counts(read_status(dataset)) == {"numbers": (3, 0, 0, 0)}


def test_verdicts_are_a_stage_and_imported_labels_are_none(dataset):  # noqa: F811
    from pipelines.filter import filter_dataset

    filters = {"low": {"use": "filters.score:MinimumScore", "args": {"minimum": 0.6}}}
    chosen = Recipe.model_validate(
        {"name": "f", "filters": filters, "specialists": {"same": {"use": "tests.toy_specialists:Same"}}}
    )
    assert counts(read_status(dataset, chosen)) == {"same": (0, 0, 0, 3), "filter": (0, 0, 0, 3)}
    run(dataset, chosen)
    filter_dataset(dataset, chosen)
    assert counts(read_status(dataset)) == {"same": (3, 0, 0, 0), "filter": (3, 0, 0, 0)}


def test_the_command_as_text_and_as_json_escapes_what_a_data_set_says(dataset, capsys, monkeypatch):  # noqa: F811
    write_live(dataset, "r1", user="\x1b[31mred", recipe="a\nb")
    monkeypatch.setattr("sys.argv", ["fde", "status", dataset.url])
    with pytest.raises(SystemExit) as leave:
        main()
    out = capsys.readouterr().out
    assert leave.value.code == 0 and "\x1b" not in out and "a\\nb by \\x1b[31mred@elsewhere" in out
    monkeypatch.setattr("sys.argv", ["fde", "status", dataset.url, "--json"])
    with pytest.raises(SystemExit):
        main()
    told = json.loads(capsys.readouterr().out)
    assert told["stages"][0]["left"] == 2 and told["drivers"][0]["told"]["host"] == "elsewhere"


@pytest.mark.parametrize(
    "stage", [None, [], {}, {"units": {}}, {"units": {"left": "x", "failed": 0, "running": []}}]
)
def test_a_live_file_that_tells_nonsense_is_passed_over(dataset: Dataset, stage):  # noqa: F811
    run(dataset, recipe(numbers=part("Numbers")))
    write_live(dataset, "r1", stages={"numbers": stage})
    assert counts(read_status(dataset)) == {"numbers": (3, 0, 0, 0)}
