"""Links and names in a hostile data set: nothing is written, emptied or left hanging outside of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import StorageError
from data_engine.ingest.run import ingest
from data_engine.storage import Store
from tests.picture_files import png, put

DAYS = 3 * 86_400


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder of somebody's own, of some days ago."""
    folder = put(tmp_path / "home", {"thesis.txt": "mine", "00000.parquet": "mine", "work/draft": "mine"})
    for path in sorted(folder.rglob("*")):
        os.utime(path, (time.time() - DAYS, time.time() - DAYS))
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    put(tmp_path / "pictures", {f"{i}.png": png(i) for i in range(3)})
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    return Dataset.open(str(tmp_path / "ds"))


def untouched(home: Path) -> bool:
    files = {str(p.relative_to(home)): p.read_text() for p in home.rglob("*") if p.is_file()}
    return files == dict.fromkeys(("thesis.txt", "00000.parquet", "work/draft"), "mine")


def linked(dataset: Dataset, name: str, home: Path) -> None:
    place = Path(dataset.store.root) / name
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        place.rmdir()
    place.symlink_to(home)


def test_a_sweep_empties_no_folder_that_a_link_leads_to(dataset: Dataset, home: Path) -> None:
    linked(dataset, ".tmp", home)
    dataset.store.sweep()
    assert untouched(home)


@pytest.mark.parametrize("name", ["annotations/caption", "annotations", "failures", ".tmp"])
def test_nothing_is_written_through_a_link_that_leads_out(dataset: Dataset, home: Path, name: str) -> None:
    linked(dataset, name, home)
    (home / "caption").mkdir()
    folder = name.partition("/")[0] if name != ".tmp" else "annotations"
    with pytest.raises(StorageError, match="leads out of the data set") as raised:
        dataset.store.write_bytes(f"{folder}/caption/00000.parquet", b"theirs")
    assert raised.value.hint
    (home / "caption").rmdir()
    assert untouched(home)


def test_nothing_is_removed_through_a_link_that_leads_out(dataset: Dataset, home: Path) -> None:
    linked(dataset, "annotations", home)
    for remove in (dataset.store.delete, dataset.store.delete_folder):
        with pytest.raises(StorageError, match="leads out of the data set"):
            remove("annotations/work" if remove == dataset.store.delete_folder else "annotations/thesis.txt")
    linked(dataset, ".ingest", home)
    dataset.store.delete_folder(".ingest")
    assert untouched(home)


def test_links_of_ones_own_still_work(tmp_path: Path, dataset: Dataset) -> None:
    """The data set's own folder may be a link, and a folder in it may be one to another in it."""
    (tmp_path / "alias").symlink_to(dataset.store.root)
    store = Store(str(tmp_path / "alias"))
    (Path(store.root) / "annotations/real").mkdir(parents=True)
    (Path(store.root) / "annotations/same").symlink_to("real")
    store.write_bytes("annotations/same/00000.parquet", b"x")
    assert store.read("annotations/real/00000.parquet") == b"x"
