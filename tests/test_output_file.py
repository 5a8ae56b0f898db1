"""Files that commands write where a person asks: whole, or the old one stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_engine.errors import StorageError
from data_engine.ingest.run import ingest
from data_engine.output_file import written
from tests.toy_sources import write_pictures

ROOT = Path(__file__).resolve().parents[1]


def test_a_file_is_replaced_when_it_is_whole_and_its_folder_is_made(tmp_path):
    file = tmp_path / "a" / "b" / ("n" * 255)
    for text in (b"one", b"two"):
        with written(file) as stream:
            stream.write(text)
        assert file.read_bytes() == text
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_is_not_whole_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "x.csv"
    file.write_bytes(b"old")
    with pytest.raises(error), written(file) as stream:
        stream.write(b"half of the new")
        raise error
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_link_stays_one_and_a_folder_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to("there/x.csv")
    with written(link) as stream:
        stream.write(b"new")
    assert link.is_symlink() and (tmp_path / "there/x.csv").read_bytes() == b"new"
    with pytest.raises(StorageError, match="is a folder"), written(tmp_path / "there"):
        pass


def test_a_pipe_is_written_to(tmp_path):
    """As `/dev/stdout` is, and `/dev/null`."""
    reads, writes = os.pipe()
    with written(Path(f"/proc/self/fd/{writes}")) as stream:
        stream.write(b"rows")
    os.close(writes)
    with os.fdopen(reads, "rb") as stream:
        assert stream.read() == b"rows"


def test_on_a_full_disk_the_old_file_stands_and_the_hint_is_about_a_file(tmp_path):
    """A real file system of 300 KiB, in a mount namespace of its own."""
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*mount, f"mount -t tmpfs -o size=300k t {tmp_path}"]).returncode
    ):
        pytest.skip("this machine lets nobody mount a file system of their own")
    write_pictures(tmp_path / "p", 4)
    ingest(str(tmp_path / "p"), str(tmp_path / "ds"))
    (tmp_path / "disk").mkdir()
    fde = f"{sys.executable} -m pipelines"
    query = "SELECT md5(i::VARCHAR) AS x FROM range(100000) t(i)"
    commands = [
        *(
            f"{fde} sql {tmp_path}/ds '{query}' -o {tmp_path}/disk/old.{kind}"
            for kind in ("csv", "json", "parquet")
        ),
        f"{fde} draw {tmp_path}/ds {tmp_path}/disk/old.bmp",
        f"{fde} report {tmp_path}/ds -o {tmp_path}/disk/old.html",
    ]
    script = f"cd {ROOT} && mount -t tmpfs -o size=300k none {tmp_path}/disk || exit 99\n"
    script += f"for kind in csv json parquet bmp html; do echo old > {tmp_path}/disk/old.$kind; done\n"
    script += f"head -c 280000 /dev/zero > {tmp_path}/disk/ballast\n"
    script += "".join(f"{command}; echo $?\n" for command in commands)
    script += f"cat {tmp_path}/disk/old.*; ls -A {tmp_path}/disk"
    done = subprocess.run([*mount, script], capture_output=True, text=True)
    files = ["ballast", "old.bmp", "old.csv", "old.html", "old.json", "old.parquet"]
    assert done.stdout.split() == ["4"] * 5 + ["old"] * 5 + files, done.stdout + done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 10 and all(line.startswith("fde: no space left for ") for line in said[::2]), said
    assert all("same command" in line and "shards" not in line for line in said[1::2])
