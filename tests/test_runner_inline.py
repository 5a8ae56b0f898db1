"""The runner in one process: what is written, what is skipped, and what a bad picture or specialist costs."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import IncompleteError, ModelLoadError, RecipeError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter, StageProgress
from data_engine.runner.work import Beat, Done
from pipelines.annotate import annotate
from tests.toy_sources import write_pictures

TOY = "tests.toy_specialists:"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_pictures(tmp_path / "pictures", 25)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=10)
    return Dataset.open(str(tmp_path / "ds"))


def recipe(**parts: SpecialistPart) -> Recipe:
    return Recipe(name="toy", specialists=parts).check()


def part(name: str, needs: tuple[str, ...] = (), batch: int = 4, **args: object) -> SpecialistPart:
    return SpecialistPart(use=TOY + name, args=args, needs=list(needs), batch=batch)


def run(dataset: Dataset, recipe: Recipe):
    return annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))


def ask(dataset: Dataset, query: str) -> list[tuple]:
    return [tuple(row.values()) for row in sql(dataset, query).to_pylist()]


def test_every_image_is_annotated_once_and_the_shards_keep_their_names(dataset):
    summary = run(dataset, recipe(numbers=part("Numbers")))
    assert dataset.store.files("annotations/numbers") == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert ask(dataset, "SELECT count(*), count(DISTINCT image_id), count(DISTINCT text) FROM texts") == [
        (25, 25, 25)
    ]
    assert summary.stages[0].images == 25 and summary.stages[0].annotations == 50


def test_a_second_run_does_nothing_and_a_missing_shard_is_redone_alone(dataset):
    chosen = recipe(numbers=part("Numbers"))
    run(dataset, chosen)
    before = sql(dataset, "FROM annotations ORDER BY annotation_id")
    (Path(dataset.url) / "annotations/numbers/00001.parquet").unlink()
    summary = run(dataset, chosen)
    assert (summary.stages[0].units_done, summary.stages[0].units_skipped) == (1, 2)
    assert sql(dataset, "FROM annotations ORDER BY annotation_id") == before


def test_a_damaged_shard_counts_as_missing(dataset):
    chosen = recipe(numbers=part("Numbers"))
    run(dataset, chosen)
    shard = Path(dataset.url) / "annotations/numbers/00002.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    assert run(dataset, chosen).stages[0].units_done == 1


def test_said_holds_exactly_the_rows_of_the_batch(dataset):
    run(dataset, recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",), batch=3)))
    rows = ask(
        dataset,
        "SELECT count(*) FROM texts e JOIN texts n ON e.parent_id = n.annotation_id AND e.image_id = n.image_id "
        "WHERE e.source = 'echo' AND e.text = 'echo ' || n.text",
    )
    assert rows == [(25,)]


def test_changing_one_specialist_redoes_it_and_what_depends_on_it_only(dataset, caplog):
    run(
        dataset, recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",)), other=part("BadRows"))
    )
    changed = recipe(
        numbers=part("Numbers", word="count"), echo=part("Echo", needs=("numbers",)), other=part("BadRows")
    )
    done = {stage.name: stage.units_done for stage in run(dataset, changed).stages}
    assert done == {"numbers": 3, "echo": 3, "other": 0}
    assert "numbers: 3 shards were made by another recipe" in caplog.text
    assert ask(dataset, "SELECT count(*) FROM texts WHERE source = 'echo' AND text LIKE 'echo count%'") == [
        (25,)
    ]


def test_how_wide_a_specialist_runs_changes_nothing(dataset):
    run(dataset, recipe(numbers=part("Numbers")))
    wide = part("Numbers").model_copy(update={"actors": 4, "cpus": 0.5})
    assert run(dataset, recipe(numbers=wide)).stages[0].units_skipped == 3


@pytest.mark.parametrize(
    ("how", "reason"),
    [("error", "specialist_error"), ("image_error", "too_odd"), ("short", "specialist_error")],
)
def test_an_image_that_a_specialist_cannot_take_costs_only_itself(dataset, how, reason):
    run(dataset, recipe(fails=part("Fails", on=[3, 14], how=how)))
    assert ask(dataset, "SELECT count(*) FROM texts") == [(23,)]
    assert ask(dataset, "SELECT stage, reason, key FROM failures ORDER BY key") == [
        ("fails", reason, "00003.png"),
        ("fails", reason, "00014.png"),
    ]


def test_out_of_memory_halves_the_batch_and_loses_nothing(dataset):
    run(dataset, recipe(fails=part("Fails", on=[], how="memory", batch=10)))
    assert ask(dataset, "SELECT count(*) FROM texts") == [(25,)]
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]


def test_a_specialist_that_fails_on_every_image_ends_the_run_and_writes_nothing(dataset):
    with pytest.raises(SpecialistError, match="every image of shard 00000"):
        run(dataset, recipe(fails=part("Fails", on=list(range(25)))))
    assert dataset.store.files("annotations/fails") == []
    assert ask(dataset, "SELECT status FROM runs") == [("failed",)]


def test_a_specialist_that_cannot_load_says_so_before_any_work(dataset):
    with pytest.raises(ModelLoadError, match="no weights at nowhere.pt"):
        run(dataset, recipe(broken=part("CannotLoad", weights="nowhere.pt")))


def test_rows_that_cannot_be_stored_are_counted_and_the_good_ones_kept(dataset):
    run(dataset, recipe(bad=part("BadRows")))
    assert ask(dataset, "SELECT count(*) FROM annotations") == [(25,)]
    message = "3 of 4 annotations refused; the first: a box must be 4 finite numbers"
    assert ask(dataset, "SELECT count(*), count(DISTINCT image_id), any_value(message) FROM failures")[0][
        :2
    ] == (25, 25)
    assert ask(dataset, f"SELECT count(*) FROM failures WHERE starts_with(message, '{message}')") == [(25,)]


def test_a_file_that_vanished_or_changed_since_ingest_is_a_failure(dataset, tmp_path):
    (tmp_path / "pictures/00004.png").unlink()
    changed = tmp_path / "pictures/00005.png"
    changed.write_bytes(
        (tmp_path / "pictures/00006.png").read_bytes()[: changed.stat().st_size].ljust(changed.stat().st_size)
    )
    run(dataset, recipe(numbers=part("Numbers")))
    assert ask(dataset, "SELECT key, reason FROM failures ORDER BY key") == [
        ("00004.png", "missing"),
        ("00005.png", "changed"),
    ]
    assert ask(dataset, "SELECT count(*) FROM texts") == [(23,)]


def test_failures_of_an_earlier_attempt_do_not_stay(dataset):
    chosen = recipe(fails=part("Fails", on=[3]))
    run(dataset, chosen)
    run(dataset, recipe(fails=part("Fails", on=[])))
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]


def test_a_damaged_image_shard_costs_its_own_units_and_the_run_says_so(dataset, caplog):
    shard = Path(dataset.url) / "images/00001.parquet"
    shard.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(IncompleteError, match="2 units"):
        run(dataset, recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",))))
    assert dataset.store.files("annotations/echo") == ["00000.parquet", "00002.parquet"]
    assert "images/00001.parquet is damaged" in caplog.text


def test_labels_that_the_data_set_lacks_are_refused_before_any_work(dataset):
    with pytest.raises(RecipeError, match="no such labels"):
        run(dataset, recipe(echo=part("Echo", needs=("human",))))


def test_each_run_leaves_one_row_per_stage(dataset):
    run(dataset, recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",))))
    assert ask(dataset, "SELECT stage, status, units_done, images, annotations FROM runs ORDER BY stage") == [
        ("echo", "done", 3, 25, 25),
        ("numbers", "done", 3, 25, 50),
    ]


def test_provenance_stands_in_the_shard_itself(dataset):
    import pyarrow.parquet as pq

    run(dataset, recipe(numbers=part("Numbers")))
    metadata = pq.read_metadata(Path(dataset.url) / "annotations/numbers/00002.parquet").metadata
    provenance = json.loads(metadata[b"fde"])
    assert provenance["recipe"]["use"] == TOY + "Numbers"
    assert (provenance["images"], provenance["rows"], provenance["failures"]) == (5, 10, 0)
    assert len(provenance["fingerprint"]) == 32


def test_a_specialist_that_needs_no_pixels_reads_no_file(dataset, tmp_path):
    known = dict(ask(dataset, "SELECT image_id, width || ' x ' || height FROM images"))
    for file in (tmp_path / "pictures").iterdir():
        file.unlink()
    run(dataset, recipe(sizes=part("Sizes", batch=4)))
    assert dict(ask(dataset, "SELECT image_id, text FROM texts")) == known
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]


def test_a_runtime_env_is_more_than_one_process_can_have_but_for_its_variables(dataset, monkeypatch):
    monkeypatch.setenv("FDE_TOY", "before")
    chosen = part("Surroundings", variable="FDE_TOY")
    run(dataset, recipe(a=chosen.model_copy(update={"runtime_env": {"env_vars": {"FDE_TOY": "during"}}})))
    assert ask(dataset, "SELECT DISTINCT split_part(text, ' ', 1) FROM texts") == [("during",)]
    assert os.environ["FDE_TOY"] == "before"
    with pytest.raises(SpecialistError, match=r"specialists\.b has a runtime_env with pip, which only Ray"):
        run(dataset, recipe(b=chosen.model_copy(update={"runtime_env": {"pip": ["x"]}})))


def test_how_a_specialist_is_run_makes_nothing_anew(dataset):
    chosen = part("Numbers")
    run(dataset, recipe(numbers=chosen))
    other = chosen.model_copy(
        update={"silence": 5.0, "resources": {"tpu": 1}, "runtime_env": {"env_vars": {"A": "b"}}}
    )
    assert run(dataset, recipe(numbers=other)).stages[0].units_skipped == 3


def test_progress_knows_what_failed_and_how_long_the_stage_took(dataset):
    (Path(dataset.url) / "images/00001.parquet").write_bytes(b"PAR1 nothing PAR1")
    reporter = Reporter(terminal=False)
    chosen = recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",)))
    with pytest.raises(IncompleteError):
        annotate(dataset, chosen, runner="inline", reporter=reporter)
    numbers, echo = reporter.stages.values()
    assert "damaged" in numbers.failed["00001"] and echo.failed == {"00001": "it needs numbers"}
    assert not numbers.running and numbers.actors == 0
    assert numbers.actor_seconds > 0 and len(numbers.unit_seconds) == 2


def test_the_last_line_of_a_stage_comes_at_its_end_with_its_own_rate(dataset, caplog):
    caplog.set_level(logging.INFO, "data_engine")
    reporter = Reporter(terminal=False, every=1e9)
    chosen = recipe(numbers=part("Numbers"), aloud=part("LoadsAloud"))
    annotate(dataset, chosen, runner="inline", reporter=reporter)
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" images")[0] for line in said] == ["numbers 25/25", "loading", "aloud 25/25"]
    assert all(line.endswith(" images/s, done, 0 failures") for line in said if line != "loading")
    numbers, aloud = reporter.stages.values()
    assert numbers.started < numbers.ended < aloud.started < aloud.ended
    assert f" {numbers.rate:,.1f} images/s" in said[0]


def test_a_stage_whose_last_shard_is_given_up_has_ended_too(dataset, caplog):
    caplog.set_level(logging.INFO, "data_engine")
    (Path(dataset.url) / "images/00002.parquet").write_bytes(b"PAR1 nothing PAR1")
    reporter = Reporter(terminal=False, every=1e9)
    with pytest.raises(IncompleteError):
        annotate(dataset, recipe(a=part("Numbers"), b=part("LoadsAloud")), runner="inline", reporter=reporter)
    said = [record.getMessage() for record in caplog.records if "damaged" not in record.getMessage()]
    assert [line.split(" images")[0] for line in said] == ["a 20/25", "loading", "b 20/25"]
    assert all(line.endswith(", done, 0 failures") for line in said if line != "loading")


def test_a_stage_without_a_rate_tells_no_time_that_is_left():
    stage = StageProgress("s", 10, units=1, started=time.monotonic())
    assert stage.line == "0.0 images/s, 0 failures"
    stage.count(Beat(4, 0, 0))
    assert "0:00:0" in stage.line and stage.ended is None
    stage.count(Beat(6, 1, 0))
    stage.count(Done(10, 1, 10))
    assert stage.ended is not None and stage.line.endswith(", done, 1 failure")
