"""Filters on a real Ray cluster: the verdicts are those of one process, whatever happens to its actors."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_engine.dataset import Dataset
from data_engine.errors import IncompleteError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.recipe import FilterPart, Recipe, Where, load_recipe
from data_engine.runner.cluster import connect
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from pipelines.filter import FilterSummary, filter_dataset
from tests.test_runner_inline import part, recipe
from tests.toy_sources import write_pictures

pytestmark = pytest.mark.ray

SHARDS = 12


@pytest.fixture(scope="module")
def cluster():
    ray, ours = connect(None)
    yield ray
    if ours:
        ray.shutdown()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", SHARDS * 5)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=5)
    dataset = Dataset.open(str(tmp_path / "ds"))
    annotate(dataset, recipe(numbers=part("Numbers")), runner="inline", reporter=Reporter(terminal=False))
    (tmp_path / "marks").mkdir()
    return dataset


def judged(dataset: Dataset, chosen: Recipe, runner: str, **more: object) -> FilterSummary:
    return filter_dataset(dataset, chosen, runner=runner, reporter=Reporter(terminal=False), **more)


def verdicts(dataset: Dataset) -> dict[str, list[dict]]:
    """Every shard's rows in their order."""
    folder = Path(dataset.url) / "verdicts" / "0"
    return {p.name: pq.read_table(p).to_pylist() for p in sorted(folder.glob("*"))}


def toy(use: str, **args: object) -> FilterPart:
    return FilterPart(use=f"tests.toy_filters:{use}", args=args)


def test_ray_and_one_process_write_the_same_verdicts(dataset, tmp_path, cluster):
    chosen = Recipe(
        name="f",
        filters={
            "seen": toy("Seen", folder=str(tmp_path / "marks")),
            "sized": FilterPart(use="filters.image_size:ImageSize", args={"minimum_side": 1}),
            "low": FilterPart(
                use="filters.score:MinimumScore", args={"minimum": 0.6}, where=Where(kind=["text"])
            ),
        },
    ).check()
    inline = judged(dataset, chosen, "inline")
    expected = verdicts(dataset)
    dataset.store.delete_folder("verdicts/0")
    on_ray = judged(dataset, chosen, "ray")
    assert inline.runner == "inline" and on_ray.runner == "ray"
    assert verdicts(dataset) == expected and len(expected) == SHARDS
    assert inline.seen == SHARDS * 10 and inline.dropped["seen"] == 6 and inline.dropped["low"] > 0
    figures = lambda s: (s.seen, s.kept, s.dropped, s.images, s.bare, s.shards_done)  # noqa: E731
    assert figures(inline) == figures(on_ray)
    # A look for each run, and none of its own for each worker.
    assert len(list((tmp_path / "marks").iterdir())) == 2
    again = judged(dataset, chosen, "inline")
    assert (again.shards_skipped, again.seen, again.kept) == (SHARDS, inline.seen, inline.kept)


@pytest.mark.slow
def test_a_dry_run_says_the_same_and_writes_nothing(dataset, cluster):
    low = Recipe(
        name="f", filters={"low": FilterPart(use="filters.score:MinimumScore", args={"minimum": 0.6})}
    )
    inline, on_ray = (judged(dataset, low, runner, sample=0.5) for runner in ("inline", "ray"))
    assert (inline.seen, inline.dropped, inline.bare) == (on_ray.seen, on_ray.dropped, on_ray.bare)
    assert inline.seen > 0 and not verdicts(dataset)


def test_a_dead_worker_is_replaced_and_its_shard_judged_again(dataset, tmp_path, cluster, caplog):
    mortal = Recipe(name="f", filters={"it": toy("DiesOnce", folder=str(tmp_path / "marks"), times=1)})
    summary = judged(dataset, mortal, "ray")
    assert (summary.seen, summary.kept, summary.shards_done) == (SHARDS * 10, SHARDS * 10, SHARDS)
    assert caplog.text.count("its actor died; the shard is tried again") == 1


@pytest.mark.parametrize("runner", [pytest.param("inline"), pytest.param("ray", marks=pytest.mark.slow)])
def test_a_filter_that_raises_ends_the_run_with_one_line(dataset, runner):
    with pytest.raises(SpecialistError, match=r"shard 0000\d: filters\.odd raised KeyError: .*beauty"):
        judged(dataset, Recipe(name="f", filters={"odd": toy("Raises")}), runner)


@pytest.mark.parametrize("runner", [pytest.param("inline"), pytest.param("ray", marks=pytest.mark.slow)])
def test_a_damaged_shard_costs_its_own_verdicts_alone(dataset, runner, caplog):
    shard = Path(dataset.url) / "annotations" / "numbers" / "00003.parquet"
    good = shard.read_bytes()
    shard.write_bytes(good[:200] + b"x" * 40 + good[240:])
    slow = Recipe(name="f", filters={"slow": toy("Slow", pause=0)})
    with pytest.raises(IncompleteError, match="1 of 12 shards"):
        judged(dataset, slow, runner)
    assert "filter 00003" in caplog.text and "damaged" in caplog.text
    assert len(verdicts(dataset)) == SHARDS - 1
    shard.write_bytes(good)
    assert judged(dataset, slow, runner).shards_done == 1


@pytest.mark.slow
def test_a_run_that_is_interrupted_goes_on(dataset, tmp_path):
    (tmp_path / "slow.yaml").write_text(
        "name: slow\nfilters: {slow: {use: 'tests.toy_filters:Slow', args: {pause: 0.3}}}"
    )
    command = [
        sys.executable,
        "-m",
        "pipelines",
        "filter",
        dataset.url,
        "--recipe",
        str(tmp_path / "slow.yaml"),
    ]
    process = subprocess.Popen(
        [*command, "--runner", "ray"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[1],
    )
    folder = Path(dataset.url) / "verdicts" / "0"
    deadline = time.monotonic() + 90
    while not (folder.is_dir() and len(list(folder.iterdir())) > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and b"fde: interrupted" in said and b"Traceback" not in said
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert 2 < len(before) < SHARDS
    chosen = load_recipe(tmp_path / "slow.yaml")
    summary = judged(dataset, chosen, "inline")
    assert summary.shards_skipped == len(before) and summary.shards_done == SHARDS - len(before)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    found = verdicts(dataset)
    dataset.store.delete_folder("verdicts/0")
    judged(dataset, chosen, "inline")
    assert found == verdicts(dataset)
