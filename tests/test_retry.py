"""`fde retry`: what failed passes, nothing else is redone, and it can be interrupted anywhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.recipe import Recipe
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from pipelines.retry import retry
from tests.test_live import dataset, run  # noqa: F401 - a fixture
from tests.test_runner_inline import ask, part, recipe

FILTERS = Recipe.model_validate(
    {"name": "f", "filters": {"low": {"use": "filters.score:MinimumScore", "args": {"minimum": 0.6}}}}
).filters


def quiet() -> Reporter:
    return Reporter(terminal=False)


def shards(dataset: Dataset) -> dict[str, int]:  # noqa: F811
    """Every shard of annotations and verdicts, and when it was put in place."""
    root = Path(dataset.url)
    return {
        str(p.relative_to(root)): p.stat().st_mtime_ns
        for f in ("annotations", "verdicts")
        for p in (root / f).rglob("*.parquet")
    }


def redone(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name, moment in after.items() if before.get(name) != moment}


@pytest.fixture
def hidden(dataset, tmp_path):  # noqa: F811
    """A data set one of whose pictures, in its second shard, was not there when it was annotated and judged."""
    picture = tmp_path / "pictures" / "00005.png"
    picture.rename(tmp_path / "away.png")
    chosen = recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",)), same=part("Same"))
    chosen = chosen.model_copy(update={"filters": FILTERS})
    run(dataset, chosen)
    filter_dataset(dataset, chosen, reporter=quiet())
    assert ask(dataset, "SELECT stage, reason FROM failures ORDER BY 1") == [
        ("echo", "missing"), ("numbers", "missing"), ("same", "missing"),
    ]  # fmt: skip
    (tmp_path / "away.png").rename(picture)
    return dataset, chosen


def test_what_failed_is_made_again_with_what_needs_it_and_its_verdicts(hidden):
    dataset, chosen = hidden  # noqa: F811
    before = shards(dataset)
    summary = retry(dataset, chosen, specialists=("numbers",), reporter=quiet())
    assert dict(summary.before) == {("numbers", "missing"): 1} and not summary.after
    assert redone(before, shards(dataset)) == {
        "annotations/numbers/00001.parquet",
        "annotations/echo/00001.parquet",
    }
    assert ask(dataset, "SELECT source, count(*) FROM texts GROUP BY 1 ORDER BY 1") == [
        ("echo", 12), ("numbers", 12), ("same", 11),
    ]  # fmt: skip
    before = shards(dataset)
    filter_dataset(dataset, chosen, reporter=quiet())
    assert redone(before, shards(dataset)) == {"verdicts/0/00001.parquet"}
    assert ask(dataset, "SELECT count(*) FROM annotations") == ask(dataset, "SELECT count(*) FROM verdicts")
    before = shards(dataset)
    run(dataset, chosen)
    filter_dataset(dataset, chosen, reporter=quiet())
    assert redone(before, shards(dataset)) == set()
    assert dataset.store.files("retries", ".json") == []


class Cut(BaseException):
    """Ends a run as a kill would, in one process."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_retry_is_gone_on_with_by_annotate(hidden, after):
    dataset, chosen = hidden  # noqa: F811

    class Cutting(Reporter):
        left = after

        def tick(self, *, last: bool = False) -> None:
            self.left -= sum(stage.units_done for stage in self.stages.values()) >= after
            if self.left < after and not last:
                raise Cut

    before = shards(dataset)
    with pytest.raises(Cut):
        retry(dataset, chosen, reporter=Cutting(terminal=False))
    assert len(redone(before, shards(dataset))) == after
    annotate(dataset, chosen, runner="inline", reporter=quiet())
    made = redone(before, shards(dataset))
    assert made == {f"annotations/{name}/00001.parquet" for name in ("numbers", "echo", "same")}
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]
    assert ask(dataset, "SELECT count(DISTINCT image_id) FROM texts WHERE source = 'echo'") == [(12,)]


def test_only_chosen_reasons_are_retried_and_nothing_to_retry_runs_nothing(hidden):
    dataset, chosen = hidden  # noqa: F811
    before = shards(dataset)
    assert retry(dataset, chosen, reasons=("killed_worker",), reporter=quiet()).run is None
    assert redone(before, shards(dataset)) == set() and dataset.store.files("retries", ".json") == []
    retry(dataset, chosen, reasons=("missing",), reporter=quiet())
    assert retry(dataset, chosen, reporter=quiet()).run is None


def test_what_fails_again_stays_a_failure(dataset):  # noqa: F811
    chosen = recipe(fails=part("Fails", on=[2]))
    run(dataset, chosen)
    summary = retry(dataset, chosen, reporter=quiet())
    assert summary.before == summary.after and summary.shards == 1
    assert ask(dataset, "SELECT reason FROM failures") == [("specialist_error",)]


def test_another_recipe_is_refused_before_it_redoes_anything(hidden):
    dataset, _ = hidden  # noqa: F811
    before = shards(dataset)
    with pytest.raises(RecipeError, match="3 shards of numbers were made by another recipe"):
        retry(dataset, recipe(numbers=part("Numbers", word="count")), reporter=quiet())
    with pytest.raises(RecipeError, match="no specialist 'number' - did you mean 'numbers'"):
        retry(dataset, recipe(numbers=part("Numbers")), specialists=("number",), reporter=quiet())
    assert redone(before, shards(dataset)) == set()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"units": {"../x": ["00000"]}, "verdicts": []}', b'{"units": 3}']
)
def test_a_request_that_is_none_asks_for_nothing(dataset, content):  # noqa: F811
    chosen = recipe(numbers=part("Numbers"))
    run(dataset, chosen)
    before = shards(dataset)
    dataset.store.write_bytes("retries/x.json", content)
    os.utime(Path(dataset.url) / "retries/x.json", (time.time() + 60,) * 2)
    run(dataset, chosen)
    assert redone(before, shards(dataset)) == set()
