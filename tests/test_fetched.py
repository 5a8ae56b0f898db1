"""A model on a store is fetched once, whole, and counts as what its bytes are."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import ModelLoadError, StorageError
from data_engine.fetched import fetch, fetched, is_on_a_store
from data_engine.fingerprint import arguments_digest
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.storage import Store
from pipelines.annotate import annotate
from tests.s3_proxy import Proxy, s3_proxy
from tests.s3_server import s3_environment, shared_server
from tests.toy_sources import write_pictures


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with s3_proxy(shared_server(), 0) as (address, proxy), s3_environment(address):
        yield proxy


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.mark.parametrize("value", ["", "a", "./x", "/a/b", "file:///x", "http://h/v1", "https://h", "a b://c", "://x", 3, None])  # fmt: skip
def test_other_arguments_are_left_alone(value: object) -> None:
    assert not is_on_a_store(value) and fetched({"a": [value]}) == {"a": [value]}


def test_a_folder_is_fetched_once_and_anew_when_it_changes(server: Proxy, cache: Path) -> None:
    store = Store("s3://bucket/models/one")
    store.write_bytes("config.json", b"{}")
    store.write_bytes("deep/er/weights.bin", b"w" * 10_000)
    args = {"model": "s3://bucket/models/one", "more": [{"file": "s3://bucket/models/one/config.json"}]}
    found = fetched(args)
    folder = Path(found["model"])
    assert folder.name == "one" and (folder / "config.json").read_bytes() == b"{}"
    assert (folder / "deep/er/weights.bin").read_bytes() == b"w" * 10_000
    assert Path(found["more"][0]["file"]).read_bytes() == b"{}"
    server.asked.clear()
    assert fetched(args) == found
    assert not [line for line in server.asked if line.startswith("GET") and "list-type" not in line]
    store.write_bytes("config.json", b"[]")
    again = Path(fetched(args)["model"])
    assert again != folder and (again / "config.json").read_bytes() == b"[]"
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


def test_many_that_want_the_same_model_fetch_it_once(server: Proxy) -> None:
    Store("s3://bucket/models/shared").write_bytes("weights.bin", b"w" * 100_000)
    server.asked.clear()
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fetch, ["s3://bucket/models/shared"] * 4))) == 1
    assert len([line for line in server.asked if line.startswith("GET") and "bytes=" in line]) == 1


def test_a_fetch_that_breaks_leaves_nothing_and_the_next_goes_on(
    server: Proxy, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store("s3://bucket/models/broken").write_bytes("weights.bin", b"w" * 100_000)
    monkeypatch.setenv("FDE_STORAGE_PATIENCE", "0.3")
    server.rate, server.kinds = 1.0, ("cut",)
    try:
        with pytest.raises(StorageError, match="tried"):
            fetch("s3://bucket/models/broken")
    finally:
        server.rate = 0.0
    assert not [path for path in cache.glob("*") if path.suffix != ".lock"]
    assert (fetch("s3://bucket/models/broken") / "weights.bin").stat().st_size == 100_000


def test_nothing_at_a_url_is_said(server: object) -> None:
    with pytest.raises(ModelLoadError, match="there is nothing at s3://bucket/models/none"):
        fetch("s3://bucket/models/none")


def test_a_specialist_is_loaded_from_a_store_and_moving_its_weights_changes_nothing(
    server: object, tmp_path: Path
) -> None:
    (tmp_path / "weights.txt").write_text("said by weights")
    Store("s3://bucket/models").write_bytes("weights.txt", b"said by weights")
    here, there = {"weights": str(tmp_path / "weights.txt")}, {"weights": "s3://bucket/models/weights.txt"}
    assert arguments_digest(here) == arguments_digest(there)
    write_pictures(tmp_path / "pictures", 3)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    dataset = Dataset.open(str(tmp_path / "ds"))

    def run(args: dict[str, str]) -> int:
        part = SpecialistPart(use="tests.toy_weights:Weighs", args=args)
        recipe = Recipe(name="toy", specialists={"weighs": part})
        reporter = Reporter(terminal=False)
        return annotate(dataset, recipe, runner="inline", reporter=reporter).stages[0].units_done

    assert run(there) == 1 and run(here) == 0
    assert sql(dataset, "SELECT DISTINCT text FROM texts")["text"].to_pylist() == ["said by weights"]
