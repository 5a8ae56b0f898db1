"""Faults of image files, at ingest and after it. Each function brings one about and says what happened."""

from __future__ import annotations

import pyarrow.parquet as pq

from tests.fault_files import files, odd_places
from tests.fault_place import Place
from tests.picture_files import jpeg, put


def bad_files(place: Place) -> list[tuple[str, str]]:
    """Every kind of bad file in one source, each between two good ones: what each is, and its reason."""
    source, dataset = place.folder / "bad", place.folder / "bad-dataset"
    kinds = files()
    names = {kind: f"{number:03d}.jpg" for number, kind in enumerate(kinds)}
    put(source, {names[kind]: data for kind, (data, _) in kinds.items()})
    neighbours = {f"{number:03d}.good.jpg": jpeg(1000 + number) for number in range(len(kinds))}
    put(source, dict(neighbours))
    odd = odd_places(source)
    made = place.fde(
        "annotate", source, dataset, "--shard-size", 20, "-r", place.recipe, "--runner", "inline"
    )
    assert made.code == 0, made.text
    failed = {row["key"]: row["reason"] for row in pq.read_table(dataset / "failures/ingest").to_pylist()}
    ids = {
        key: row["image_id"]
        for row in pq.read_table(dataset / "images", columns=["keys", "image_id"]).to_pylist()
        for key in row["keys"]
    }
    said = set(pq.read_table(dataset / "annotations/looks")["image_id"].to_pylist())
    declined = dataset / "failures/looks"
    said |= set(pq.read_table(declined)["image_id"].to_pylist()) if declined.exists() else set()
    told = []
    for kind, (_, reason) in kinds.items():
        assert failed.get(names[kind]) == reason, (kind, failed.get(names[kind]), reason)
        assert (names[kind] in ids) == (reason is None), kind
        told.append((kind, reason or "an image"))
    for key, reason in odd.items():
        assert failed.get(key) == reason, (key, failed.get(key))
        told.append((key, reason or "passed over"))
    assert "bad_name" in failed.values()
    told.append(("a name that is no text", "bad_name"))
    wanted = {*neighbours, *(names[kind] for kind, (_, reason) in kinds.items() if reason is None)}
    assert wanted <= set(ids) and {ids[key] for key in wanted} <= said
    refused = [kind for kind, reason in told if reason not in ("an image", "passed over")]
    assert len(failed) == len(refused), failed.keys() - set(names.values())
    return told


def deleted(place: Place) -> str:
    """an image file is deleted after ingest"""
    return _one_lost(place, lambda path: path.unlink(), "missing")


def replaced(place: Place) -> str:
    """an image file is replaced by another image"""
    return _one_lost(place, lambda path: path.write_bytes(jpeg(5)), "changed")


def cut(place: Place) -> str:
    """an image file is cut after ingest"""
    return _one_lost(place, lambda path: path.write_bytes(path.read_bytes()[:-9]), "changed")


def turned_over(place: Place) -> str:
    """one bit of an image file turns over"""

    def turn(path) -> None:
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)

    return _one_lost(place, turn, "changed")


def folder_for_an_image(place: Place) -> str:
    """a folder lies in an image file's place"""

    def put_folder(path) -> None:
        path.unlink()
        path.mkdir()

    return _one_lost(place, put_folder, "unreadable")


def _one_lost(place: Place, spoil, reason: str) -> str:
    path = place.source / "00013.png"
    before = path.read_bytes()
    spoil(path)
    said = place.annotate()
    reasons = place.reasons()
    if path.is_dir():
        path.rmdir()
    path.write_bytes(before)
    assert said.code == 0, said.text
    assert reasons == {**place.refused(), reason: 1}, reasons
    return f"exit 0: that image is a row in `failures`, `{reason}`; all others are annotated"


def source_gone(place: Place) -> str:
    """the disk or mount with all images is gone"""
    away = place.source.rename(place.folder / "away")
    said = place.annotate()
    assert said.code == 6 and "no image of shard 00000 can be read" in said.text, said.text
    assert place.done() == 0
    away.rename(place.source)
    assert place.annotate().code == 0
    place.whole()
    return "exit 6: no shard is written for which not one image could be read; with the mount, the same command did all"


ROWS = (deleted, replaced, cut, turned_over, folder_for_an_image, source_gone)
