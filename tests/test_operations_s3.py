"""Live files, records, status and retries of a data set on S3, whose times are whole seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from data_engine import live
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError
from data_engine.ingest.run import ingest
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from pipelines.retry import retry
from pipelines.status import read_status
from tests.s3_server import s3_environment, s3_server
from tests.test_live import run, write_live
from tests.test_runner_inline import ask, part, recipe
from tests.toy_sources import write_pictures


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as address, s3_environment(address):
        yield "s3://bucket"


@pytest.mark.slow
def test_a_driver_a_record_a_status_and_a_retry(bucket, tmp_path):
    pictures = write_pictures(tmp_path / "pictures", 12)
    ingest(str(tmp_path / "pictures"), f"{bucket}/ds", shard_size=4)
    dataset = Dataset.open(f"{bucket}/ds")
    chosen = recipe(numbers=part("Numbers"), echo=part("Echo", needs=("numbers",)))
    pictures[6].rename(tmp_path / "gone.png")
    run(dataset, chosen)
    found = read_status(dataset, chosen)
    assert {stage.name: (stage.done, stage.left, stage.shards_with_failures) for stage in found.stages} == {
        "numbers": (3, 0, 1),
        "echo": (3, 0, 1),
    }
    assert (
        dataset.store.files("live", ".json") == [] and [row["status"] for row in found.runs] == ["done"] * 2
    )

    (tmp_path / "gone.png").rename(pictures[6])
    time.sleep(
        1.1
    )  # within one second the store cannot tell which came first, and the shard is made once more
    retry(dataset, chosen, reporter=Reporter(terminal=False))
    assert ask(dataset, "SELECT count(*) FROM failures") == [(0,)]
    time.sleep(1.1)
    again = annotate(dataset, chosen, runner="inline", reporter=Reporter(terminal=False))
    assert {stage.units_done for stage in again.stages} <= {
        0,
        1,
    }  # done within the second of the request, or not

    write_live(dataset, "r1")
    with pytest.raises(DatasetError, match="somebody@elsewhere"):
        run(dataset, recipe(numbers=part("Numbers", word="count")))
    (driver,) = live.drivers(dataset)
    assert not driver.gone and driver.age < 50
