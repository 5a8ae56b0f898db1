"""Faults of disks and of files on them. Each function brings one about and says what happened."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

from tests.damage import flip_unseen_bit
from tests.fault_place import Place, SkipError, damage, is_root

_NEW_MOUNTS = 0x00020000
"""CLONE_NEWNS of unshare(2)."""


def _own_mounts() -> None:
    """From here on this process and its children may mount what no other process sees."""
    if not is_root() or ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        raise SystemExit(99)
    _call("mount", "--make-rprivate", "/")


def _call(*command: object) -> None:
    if subprocess.run([str(part) for part in command], capture_output=True).returncode:
        raise SystemExit(99)


def _on_own_disk(place: Place, trouble: str, cure: str, options: str) -> str:
    """Annotate on a file system of our own while it is in trouble, cure it, annotate again, copy the data set out."""
    disk = place.folder / "disk"
    disk.mkdir(exist_ok=True)
    made = place.folder / "made"

    def session() -> None:
        _own_mounts()
        _call("mount", "-t", "tmpfs", "-o", options, "none", disk)
        shutil.copytree(place.dataset, disk / "ds")
        _call("sh", "-c", f"cd {disk}; {trouble}")
        first = place.annotate(dataset=disk / "ds")
        _call("sh", "-c", f"cd {disk}; {cure}")
        second = place.annotate(dataset=disk / "ds")
        shutil.copytree(disk / "ds", made, dirs_exist_ok=True)
        (place.folder / "first").write_text(f"{first.code} {first.error}")
        raise SystemExit(second.code)

    ended = place.child(session, "session").ended()
    if ended.code == 99:
        raise SkipError("nobody may mount a file system of their own here")
    assert ended.code == 0, ended.text
    shutil.rmtree(place.dataset)
    made.rename(place.dataset)
    place.whole()
    code, error = (place.folder / "first").read_text().split(" ", 1)
    assert code == "4", error
    return f"exit 4, `{_short(error, place)}`; with the cure, the same command did the rest"


def _short(error: str, place: Place) -> str:
    return error.replace(str(place.folder), "...").replace("|", "/")[:150]


def full_disk(place: Place) -> str:
    """the disk is full"""
    fill = "head -c 400000 /dev/zero > ballast 2>/dev/null || true"
    return _on_own_disk(place, fill, "rm ballast", "size=240k")


def read_only_disk(place: Place) -> str:
    """the disk is read-only"""
    return _on_own_disk(place, "mount -o remount,ro .", "mount -o remount,rw .", "size=4m")


def no_inodes(place: Place) -> str:
    """the disk has room, but for no further file"""
    fill = "i=0; while touch f$i 2>/dev/null; do i=$((i+1)); done"
    return _on_own_disk(place, fill, "rm f*", "size=4m,nr_inodes=60")


def file_limit(place: Place) -> str:
    """files may not grow beyond 2 KB (a quota, `ulimit -f`)"""
    said = place.annotate(first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)))
    assert said.code == 4, said.text
    place.sound()
    assert place.annotate().code == 0
    place.whole()
    return f"exit 4, `{_short(said.error, place)}`; without the limit, the same command did the rest"


def not_allowed(place: Place) -> str:
    """the data set belongs to another user"""
    if not is_root():
        raise SkipError("only root can come as another user")
    said = place.annotate(first=lambda: os.setuid(65534))
    assert said.code == 4, said.text
    place.sound()
    assert place.annotate().code == 0
    place.whole()
    return f"exit 4, `{_short(said.error, place)}`; for its owner, the same command did the rest"


def no_open_files(place: Place) -> str:
    """the process may open no further file (`ulimit -n`)"""
    said = place.annotate(recipe=place.other_recipe('{use: "tests.fault_specialists:Crowded", batch: 5}'))
    place.sound()
    assert said.code == 4 and place.done() == 0, said.text
    assert place.annotate().code == 0
    place.whole()
    return f"exit {said.code}, `{_short(said.error, place)}`; with more, the same command did the rest"


def cut_footer(place: Place) -> str:
    """on resume, a shard lacks its end"""
    return _remade(place, lambda path: path.write_bytes(path.read_bytes()[:-40]))


def empty_shard(place: Place) -> str:
    """on resume, a shard is empty (power was cut on a disk that does not keep its order)"""
    return _remade(place, lambda path: path.write_bytes(b""))


def foreign_shard(place: Place) -> str:
    """on resume, a Parquet file of somebody else's lies in a shard's place"""
    other = place.calm / "images" / "00001.parquet"
    return _remade(place, lambda path: shutil.copy(other, path))


def folder_for_a_shard(place: Place) -> str:
    """on resume, a folder lies in a shard's place"""

    def put(path: Path) -> None:
        path.unlink()
        path.mkdir()

    assert place.annotate().code == 0
    put(place.dataset / "annotations/looks/00001.parquet")
    said = place.annotate()
    assert said.code == 4, said.text
    (place.dataset / "annotations/looks/00001.parquet").rmdir()
    assert place.annotate().code == 0
    place.whole()
    return f"exit 4, `{_short(said.error, place)}`; once it was gone, the shard was made again"


def _remade(place: Place, spoil) -> str:
    assert place.annotate().code == 0
    spoil(place.dataset / "annotations/looks/00001.parquet")
    said = place.annotate()
    assert said.code == 0, said.text
    assert "looks: " in said.text and "(1 shard done, 3 already there)" in said.text, said.text
    place.whole()
    return "exit 0: that shard alone was made again"


def damaged_rows(place: Place) -> str:
    """on resume, a finished shard's rows are damaged, its end is not, and another stage needs them"""
    assert place.annotate().code == 0
    shutil.rmtree(place.dataset / "annotations/counts")
    path = place.dataset / "annotations/looks/00001.parquet"
    damage(path, 0.1)
    return _shard_mended(place, path)


def bit_of_a_shard(place: Place) -> str:
    """on resume, one bit of a finished shard's rows has turned over so that they read as others, and another stage needs them"""
    assert place.annotate().code == 0
    shutil.rmtree(place.dataset / "annotations/counts")
    path = place.dataset / "annotations/looks/00001.parquet"
    flip_unseen_bit(path)
    return _shard_mended(place, path)


def _shard_mended(place: Place, path: Path) -> str:
    said = place.annotate()
    assert said.code == 6 and "00001.parquet is damaged" in said.text, said.text
    assert place.done() == 7
    path.unlink()  # as the hint says
    assert place.annotate().code == 0
    place.whole()
    return "exit 6: the other shards were made; this one is named, and made again once it was deleted as the hint says"


def damaged_images(place: Place) -> str:
    """a shard of the image index is damaged"""
    return _index_mended(place, lambda path: path.write_bytes(b"PAR1 nothing PAR1"))


def missing_images(place: Place) -> str:
    """a shard of the image index is gone"""
    return _index_mended(place, lambda path: path.unlink())


def _index_mended(place: Place, spoil) -> str:
    path = place.dataset / "images/00001.parquet"
    spoil(path)
    said = place.annotate()
    assert said.code in (4, 6) and "00001.parquet" in said.text, said.text
    place.sound()
    stood = place.done()
    shutil.copy(place.calm / "images/00001.parquet", path)
    assert place.annotate().code == 0
    place.whole()
    return f"exit {said.code}, the file is named; {stood} of 8 units were done, the rest once it was restored"


def no_dataset_json(place: Place) -> str:
    """`dataset.json` is deleted in the middle"""
    return _json_restored(place, lambda path: path.unlink())


def half_dataset_json(place: Place) -> str:
    """`dataset.json` is cut in half"""
    return _json_restored(place, lambda path: path.write_bytes(path.read_bytes()[:90]))


def _json_restored(place: Place, spoil) -> str:
    path = place.dataset / "dataset.json"
    spoil(path)
    said = place.annotate()
    assert said.code == 3, said.text
    again = place.fde("ingest", place.source, place.dataset, "--shard-size", 10)
    assert again.code == 3, again.text  # it does not write over shards that it does not know
    shutil.copy(place.calm / "dataset.json", path)
    assert place.annotate().code == 0
    place.whole()
    return (
        f"exit 3, `{_short(said.error, place)}`; ingest does not write over it either; restored, all was done"
    )


def rubbish_beside(place: Place) -> str:
    """rubbish among runs, live files and the ledger, in `.tmp`, and shards with impossible names"""
    for name in (
        "runs/rubbish.parquet",
        "live/rubbish.json",
        "ledger/looks/rubbish.parquet",
        ".tmp/rubbish",
        "annotations/looks/rubbish.parquet",
        "annotations/looks/99999.parquet",
    ):
        path = place.dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\xff rubbish")
    said = place.annotate()
    assert said.code == 0, said.text
    status = place.fde("status", place.dataset)
    assert status.code == 0, status.text
    for name in ("rubbish", "99999"):
        (place.dataset / f"annotations/looks/{name}.parquet").unlink()
    place.whole()
    return "exit 0: passed over, by annotate and by status"


def killed_and_power_cut(place: Place) -> str:
    """killed with a shard half written, whose temporary file stays"""
    slow = place.slow_recipe(0.04)
    child = place.start("annotate", place.dataset, "-r", slow, "--runner", "inline")
    while place.done() < 2:
        pass
    child.kill(signal.SIGKILL)
    assert child.ended().code == -signal.SIGKILL
    (place.dataset / ".tmp/half").write_bytes(b"PAR1 half")
    place.sound()
    assert place.fde("annotate", place.dataset, "-r", slow, "--runner", "inline").code == 0
    place.whole()
    return "readers never see it; the same command did the rest; it is swept after a day"


ROWS = (
    full_disk,
    read_only_disk,
    no_inodes,
    file_limit,
    not_allowed,
    no_open_files,
    cut_footer,
    empty_shard,
    foreign_shard,
    folder_for_a_shard,
    damaged_rows,
    bit_of_a_shard,
    damaged_images,
    missing_images,
    no_dataset_json,
    half_dataset_json,
    rubbish_beside,
    killed_and_power_cut,
)
