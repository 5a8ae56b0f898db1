"""Files appear whole or not at all, and what a disk refuses is one clear error."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, NewerFormatError, StorageError
from data_engine.ingest.run import ingest
from data_engine.storage import Store, storage_errors
from tests.toy_sources import write_pictures

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> Store:
    return Store(str(tmp_path / "s") if request.param == "local" else f"memory://{tmp_path.name}/s")


def test_what_is_written_is_read_and_listed(store):
    store.write_bytes("a/two.parquet", b"2")
    store.write_bytes("a/one.parquet", b"1")
    store.write_bytes("a/other.txt", b"")
    assert store.files("a") == ["one.parquet", "two.parquet"] and store.folders("") == ["a"]
    assert store.read("a/one.parquet") == b"1" and store.exists("a/other.txt") and not store.exists("b")
    assert store.files("nowhere") == [] and store.folders("nowhere") == []
    store.delete("a/one.parquet")
    store.delete("a/one.parquet")
    assert store.files("a") == ["two.parquet"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(store):
    store.write_bytes("a/x.parquet", b"old")

    def fails(stream):
        stream.write(b"half of the new")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        store.write("a/x.parquet", fails)
    assert store.read("a/x.parquet") == b"old"
    if store.local:
        assert not any((Path(store.root) / ".tmp").iterdir())


def test_a_store_travels_between_processes(store):
    assert pickle.loads(pickle.dumps(store)) == store


def test_what_a_killed_writer_left_is_swept_after_a_day_and_not_before(tmp_path):
    store = Store(str(tmp_path))
    for name, age in (("old", 90_000), ("new", 60)):
        left = tmp_path / ".tmp" / name
        left.parent.mkdir(exist_ok=True)
        left.write_bytes(b"half")
        os.utime(left, (left.stat().st_atime, left.stat().st_mtime - age))
    store.sweep()
    assert [p.name for p in (tmp_path / ".tmp").iterdir()] == ["new"]


def test_unknown_schemes_and_missing_files_say_what_to_do(tmp_path):
    with pytest.raises(StorageError, match="cannot open 'nosuch://x'") as caught:
        Store("nosuch://x")
    assert caught.value.hint
    with pytest.raises(StorageError, match="cannot access"):
        Store(str(tmp_path)).read("gone")


def test_a_read_only_place_is_named(tmp_path):
    with pytest.raises(StorageError, match="not allowed to write /x: ") as caught, storage_errors("/x"):
        raise PermissionError(13, "Permission denied")
    assert "permissions" in caught.value.hint


def test_a_data_set_of_a_newer_format_is_refused_and_a_damaged_one_too(tmp_path):
    write_pictures(tmp_path / "p", 2)
    ingest(str(tmp_path / "p"), str(tmp_path / "ds"))
    info = tmp_path / "ds" / "dataset.json"
    text = info.read_text()
    info.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(NewerFormatError, match="has format 2"):
        Dataset.open(str(tmp_path / "ds"))
    info.write_text(text.replace('"shards"', '"shreds"'))
    with pytest.raises(DatasetError, match="damaged"):
        Dataset.open(str(tmp_path / "ds"))


def test_a_full_disk_ends_the_run_with_one_line_and_the_run_goes_on_with_space(tmp_path):
    """A real file system of 300 KiB, in a mount namespace of its own."""
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mount, f"mount -t tmpfs -o size=300k t {tmp_path}"]).returncode
    ):
        pytest.skip("this machine lets nobody mount a file system of their own")
    write_pictures(tmp_path / "p", 400)
    (tmp_path / "disk").mkdir()
    (tmp_path / "r.yaml").write_text(
        "name: r\nspecialists:\n  numbers: {use: 'tests.toy_specialists:Numbers'}\n"
    )
    fde = f"{sys.executable} -m pipelines"
    annotate = (
        f"{fde} annotate {tmp_path}/p {tmp_path}/disk/ds -r {tmp_path}/r.yaml --runner inline --shard-size 50"
    )
    script = f"""
        cd {ROOT} && mount -t tmpfs -o size=300k none {tmp_path}/disk || exit 99
        {fde} ingest {tmp_path}/p {tmp_path}/disk/ds --shard-size 50 || exit 98
        head -c 200000 /dev/zero > {tmp_path}/disk/ballast 2>/dev/null
        {annotate} 2> {tmp_path}/said
        echo $? >> {tmp_path}/codes
        rm {tmp_path}/disk/ballast
        {annotate} && {fde} sql {tmp_path}/disk/ds 'SELECT count(*) AS n FROM texts' -f csv
        echo $? >> {tmp_path}/codes
    """
    done = subprocess.run([*mount, script], capture_output=True, text=True)
    assert (tmp_path / "codes").read_text().split() == ["4", "0"], done.stdout + done.stderr
    said = [line for line in (tmp_path / "said").read_text().splitlines() if "images" not in line]
    assert len(said) == 2 and said[0].startswith("fde: no space left for ") and "same command" in said[1]
    assert done.stdout.strip().endswith("400")
