"""Sources, data sets and queries on S3, against a real server over HTTP: the same rows as on a disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_engine.dataset import Dataset
from data_engine.errors import SourceError
from data_engine.ingest.run import ingest
from data_engine.qa.checks import run_checks
from data_engine.qa.session import open_session
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.storage import Store
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from tests.s3_proxy import Proxy, s3_proxy
from tests.s3_server import s3_environment, shared_server
from tests.toy_sources import write_pictures

_PICTURES = 25

RECIPE = Recipe(
    name="toys",
    specialists={
        "numbers": SpecialistPart(use="tests.toy_specialists:Numbers"),
        "echo": SpecialistPart(use="tests.toy_specialists:Echo", needs=["numbers"]),
        "odd": SpecialistPart(use="tests.toy_specialists:Fails", args={"on": [7]}),
    },
    filters={"certain": FilterPart(use="filters.score:MinimumScore", args={"minimum": 0.6})},
)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Proxy]]:
    """A server behind a proxy that breaks nothing and writes down what is asked."""
    with s3_proxy(shared_server(), 0) as (address, proxy), s3_environment(address):
        yield address, proxy


@pytest.fixture(scope="module")
def pictures(server: object, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same pictures in the bucket as a folder, as tars and as Parquet."""
    folder = tmp_path_factory.mktemp("s3")
    paths = write_pictures(folder, _PICTURES)
    bucket = Store("s3://bucket")
    for path in paths:
        bucket.write_bytes(f"folder/a b/{path.name}", path.read_bytes())
    for number in range(2):
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as tar:
            for path in paths[number::2]:
                tar.add(path, path.name)
        bucket.write_bytes(f"tars/{number:05d}.tar", whole.getvalue())
    table = pa.table({"image": [path.read_bytes() for path in paths]})
    bucket.write("tables/all.parquet", lambda stream: pq.write_table(table, stream))
    return paths


def run(url: str, **more: Any) -> Dataset:
    dataset = Dataset.open(url)
    annotate(dataset, RECIPE, runner="inline", reporter=Reporter(terminal=False), **more)
    filter_dataset(dataset, RECIPE)
    return dataset


def facts(dataset: Dataset) -> dict[str, list[Any]]:
    # DuckDB reads lists of a fixed size as such from Arrow, and as lists from its own Parquet reader.
    return {
        "annotations": sql(dataset, "FROM annotations ORDER BY ALL").to_pylist(),
        "verdicts": sql(dataset, "FROM verdicts ORDER BY ALL").to_pylist(),
        "failures": sql(dataset, "SELECT * EXCLUDE (uri) FROM failures ORDER BY ALL").to_pylist(),
    }


def test_a_data_set_on_s3_holds_what_one_on_a_disk_does(pictures: list[Path], tmp_path: Path) -> None:
    ingest(str(pictures[0].parent), str(tmp_path / "ds"), shard_size=10)
    here = facts(run(str(tmp_path / "ds")))
    assert len(here["annotations"]) == 3 * _PICTURES + _PICTURES - 1
    summary = ingest("s3://bucket/folder", "s3://bucket/ds", shard_size=10)
    assert (summary.images, summary.shards, summary.failures) == (_PICTURES, 3, {})
    there = run("s3://bucket/ds")
    found = facts(there)
    assert found["annotations"] == here["annotations"] and found["verdicts"] == here["verdicts"]
    assert [row["reason"] for row in found["failures"]] == ["specialist_error"]
    assert 0 < sql(there, "SELECT count(*) AS n FROM statements")["n"][0].as_py() < 4 * _PICTURES - 1
    with closing(open_session(there)) as session:
        assert [check.query.name for check in run_checks(session) if not check.passed] == []
    # Again: nothing is left to do, and the source is known.
    assert ingest("s3://bucket/folder", "s3://bucket/ds", shard_size=10).already
    done = annotate(there, RECIPE, runner="inline", reporter=Reporter(terminal=False))
    assert [stage.units_done for stage in done.stages] == [0, 0, 0]


def test_images_in_tars_are_read_by_range(pictures: list[Path], server: tuple[str, Proxy]) -> None:
    ingest("s3://bucket/tars", "s3://bucket/of-tars", shard_size=10)
    dataset = Dataset.open("s3://bucket/of-tars")
    _, proxy = server
    proxy.asked.clear()
    annotate(dataset, RECIPE, runner="inline", reporter=Reporter(terminal=False))
    reads = [line for line in proxy.asked if line.startswith("GET") and ".tar" in line]
    assert len(reads) >= 2 * _PICTURES, "each picture, once for each of the specialists that look at pixels"
    sizes = {path.stat().st_size for path in pictures}
    ranges = [line.rpartition("bytes=")[2].split("-") for line in reads]
    assert {int(end) - int(start) + 1 for start, end in ranges} == sizes
    texts = sql(dataset, "SELECT DISTINCT text FROM texts WHERE source = 'numbers'")
    assert texts.num_rows == _PICTURES


@pytest.mark.slow
def test_images_in_parquet_are_copied_into_the_data_set(pictures: list[Path]) -> None:
    summary = ingest("s3://bucket/tables", "s3://bucket/of-tables", shard_size=10)
    assert (summary.images, summary.format) == (_PICTURES, "parquet")
    dataset = Dataset.open("s3://bucket/of-tables")
    annotate(dataset, RECIPE, runner="inline", reporter=Reporter(terminal=False))
    assert (
        sql(dataset, "SELECT count(*) AS n FROM texts WHERE source = 'numbers'")["n"][0].as_py() == _PICTURES
    )


@pytest.mark.slow
def test_a_data_set_on_a_disk_of_a_source_on_s3(pictures: list[Path], tmp_path: Path) -> None:
    ingest("s3://bucket/folder", str(tmp_path / "ds"), shard_size=100)
    dataset = Dataset.open(str(tmp_path / "ds"))
    annotate(dataset, RECIPE, runner="inline", reporter=Reporter(terminal=False))
    assert sql(dataset, "SELECT count(*) AS n FROM images")["n"][0].as_py() == _PICTURES
    assert sql(dataset, "SELECT DISTINCT reason FROM failures")["reason"].to_pylist() == ["specialist_error"]


def test_a_source_that_is_not_in_the_bucket_is_named(server: object) -> None:
    with pytest.raises(SourceError, match="there is no file or folder s3://bucket/nothing"):
        ingest("s3://bucket/nothing", "s3://bucket/never")


@pytest.mark.slow
def test_the_endpoint_may_stand_in_the_url(
    pictures: list[Path], server: tuple[str, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    where = f"?endpoint_override={server[0].removeprefix('http://')}&scheme=http"
    ingest(f"s3://bucket/tars{where}", f"s3://bucket/by-url{where}", shard_size=10)
    dataset = Dataset.open(f"s3://bucket/by-url{where}")
    annotate(dataset, RECIPE, runner="inline", reporter=Reporter(terminal=False))
    found = sql(dataset, "SELECT count(DISTINCT text) AS n FROM texts WHERE source = 'numbers'")
    assert found["n"][0].as_py() == _PICTURES


@pytest.mark.ray
@pytest.mark.slow
def test_actors_read_and_write_the_same_store(pictures: list[Path]) -> None:
    ingest("s3://bucket/tars", "s3://bucket/on-ray", shard_size=10)
    ingest("s3://bucket/tars", "s3://bucket/not-on-ray", shard_size=10)
    there = Dataset.open("s3://bucket/on-ray")
    annotate(there, RECIPE, runner="ray", reporter=Reporter(terminal=False))
    filter_dataset(there, RECIPE)
    assert facts(there) == facts(run("s3://bucket/not-on-ray"))
