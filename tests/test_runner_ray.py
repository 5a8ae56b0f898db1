"""The runner on a real Ray cluster of this machine: dying actors, dependencies, and equality with inline."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import ModelLoadError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.runner.cluster import connect
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from tests.test_runner_inline import ask, part, recipe
from tests.toy_sources import write_pictures

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray, ours = connect(None)
    yield ray
    if ours:
        ray.shutdown()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 25)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=10)
    return Dataset.open(str(tmp_path / "ds"))


def run(dataset, recipe):
    return annotate(dataset, recipe, runner="ray", reporter=Reporter(terminal=False))


def test_ray_and_inline_write_the_same_rows(dataset, tmp_path):
    chosen = recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",)), odd=part("Fails", on=[7]))
    summary = run(dataset, chosen)
    rows = sql(dataset, "FROM annotations ORDER BY annotation_id")
    ingest(str(tmp_path / "pictures"), str(tmp_path / "inline"), shard_size=10)
    other = Dataset.open(str(tmp_path / "inline"))
    annotate(other, chosen, runner="inline", reporter=Reporter(terminal=False))
    assert rows == sql(other, "FROM annotations ORDER BY annotation_id")
    counts = {s.name: (s.images, s.failures, s.units_done) for s in summary.stages}
    assert counts == {"numbers": (25, 0, 3), "echo": (25, 0, 3), "odd": (25, 1, 3)}


def test_a_dead_actor_is_replaced_and_its_unit_done_again(dataset, tmp_path, caplog):
    (tmp_path / "marks").mkdir()
    summary = run(dataset, recipe(mortal=part("DiesOnce", folder=str(tmp_path / "marks"))))
    assert ask(dataset, "SELECT count(*), count(DISTINCT text) FROM texts") == [(25, 25)]
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]
    assert summary.stages[0].images == 25
    assert "its actor died; the shard is tried again" in caplog.text


def test_images_that_kill_their_process_are_found_and_left_out_alone(dataset, caplog):
    run(dataset, recipe(fatal=part("Fails", on=[13, 14], how="exit")))
    assert ask(dataset, "SELECT key, reason FROM failures ORDER BY key") == [
        ("00013.png", "killed_worker"),
        ("00014.png", "killed_worker"),
    ]
    assert ask(dataset, "SELECT count(*), count(DISTINCT text) FROM texts") == [(23, 23)]


def test_a_specialist_that_cannot_load_fails_once_at_the_start_with_its_reason(dataset):
    with pytest.raises(ModelLoadError, match="no weights at nowhere.pt"):
        run(dataset, recipe(broken=part("CannotLoad", weights="nowhere.pt")))


def test_a_specialist_that_no_node_can_hold_is_refused_instead_of_waiting(dataset):
    greedy = part("Numbers").model_copy(update={"gpus": 64})
    with pytest.raises(SpecialistError, match="64 GPUs"):
        run(dataset, recipe(numbers=greedy))


def test_stages_that_do_not_fit_together_take_turns(dataset, cluster):
    # Each wants every CPU for itself, and the second needs the first.
    cpus = cluster.cluster_resources()["CPU"]
    first = part("Numbers").model_copy(update={"cpus": cpus, "actors": 3})
    second = part("Echo", needs=("numbers",)).model_copy(update={"cpus": cpus})
    run(dataset, recipe(numbers=first, echo=second))
    assert ask(dataset, "SELECT source, count(*) FROM texts GROUP BY 1 ORDER BY 1") == [
        ("echo", 25),
        ("numbers", 25),
    ]


def test_several_fractional_actors_share_the_shards(dataset):
    small = part("Numbers").model_copy(update={"cpus": 0.5, "actors": 3})
    assert run(dataset, recipe(numbers=small)).stages[0].units_done == 3


@pytest.mark.slow
def test_short_units_are_given_together_and_one_that_kills_is_found_among_them(tmp_path, caplog):
    write_pictures(tmp_path / "pictures", 120)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=1)
    dataset = Dataset.open(str(tmp_path / "ds"))
    summary = run(dataset, recipe(fatal=part("Fails", on=[100], how="exit")))
    assert ask(dataset, "SELECT key, reason FROM failures") == [("00100.png", "killed_worker")]
    assert ask(dataset, "SELECT count(*), count(DISTINCT text) FROM texts") == [(119, 119)]
    assert summary.stages[0].units_done == 120 and summary.stages[0].redone >= 4
    assert "more: its actor died; the shards are tried again" in caplog.text


@pytest.mark.slow
def test_an_image_that_hangs_is_found_like_one_that_kills(dataset, caplog):
    hangs = part("Fails", on=[13], how="hang").model_copy(update={"silence": 15})
    run(dataset, recipe(hangs=hangs))
    assert ask(dataset, "SELECT key, reason FROM failures") == [("00013.png", "killed_worker")]
    assert ask(dataset, "SELECT count(*), count(DISTINCT text) FROM texts") == [(24, 24)]
    assert "its actor gave no sign of life for 15 seconds; the shard is tried again" in caplog.text


@pytest.mark.slow
def test_each_specialist_has_the_variables_of_its_own_runtime_env(dataset):
    def with_value(value: str):
        chosen = part("Surroundings", variable="FDE_TOY")
        return chosen.model_copy(update={"runtime_env": {"env_vars": {"FDE_TOY": value}}})

    run(
        dataset,
        recipe(
            a=with_value("first-secret"),
            b=with_value("second-secret"),
            c=part("Surroundings", variable="FDE_TOY"),
        ),
    )
    said = ask(dataset, "SELECT DISTINCT source, split_part(text, ' ', 1) FROM texts ORDER BY 1")
    assert said == [("a", "first-secret"), ("b", "second-secret"), ("c", "None")]
    stored = (Path(dataset.url) / "annotations/c/00000.parquet").read_bytes()
    assert b"secret" not in stored and b"FDE_TOY" in stored
