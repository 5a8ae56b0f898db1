"""One folder per class, told from folders that only happen to be nested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_engine.ingest.formats import detected
from data_engine.ingest.run import ingest
from tests.ingested import by_key, images, labels
from tests.picture_files import jpeg, put


def texts(url: Path) -> dict[str, list[str]]:
    """Class texts by key."""
    names = {row["image_id"]: row["keys"][0] for row in images(str(url))}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for row in labels(str(url)):
        assert (row["kind"], row["granularity"], row["source"]) == ("text", "class", "human")
        assert row["box"] is None and row["score"] is None
        found[names[row["image_id"]]].append(row["text"])
    return found


def test_the_folder_is_the_class(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"cat/1.jpg": jpeg(1), "cat/2.jpg": jpeg(2), "dog/1.JPEG": jpeg(3)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.format, summary.labels) == ("classes", {"human": 3})
    assert texts(tmp_path / "out") == {"cat/1.jpg": ["cat"], "cat/2.jpg": ["cat"], "dog/1.JPEG": ["dog"]}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\n"),
        ("words.txt", "n01\ttench, Tinca tinca\nn02\tgoldfish\nn99\tnever seen\n"),
    ],
)
def test_synset_ids_become_words(tmp_path: Path, name: str, lines: str) -> None:
    source = put(
        tmp_path / "in", {"n01/a.JPEG": jpeg(1), "n02/b.JPEG": jpeg(2), "n03/c.JPEG": jpeg(3), name: lines}
    )
    ingest(str(source), str(tmp_path / "out"))
    assert texts(tmp_path / "out") == {
        "n01/a.JPEG": ["tench, Tinca tinca"],
        "n02/b.JPEG": ["goldfish"],
        "n03/c.JPEG": ["n03"],
    }
    found = by_key(str(tmp_path / "out"))
    assert json.loads(found["n01/a.JPEG"]["metadata"]) == {"class_id": "n01"}
    assert found["n03/c.JPEG"]["metadata"] is None


@pytest.mark.parametrize(
    "keys",
    [
        ["cat/1.jpg"],
        ["cat/1.jpg", "dog/2.jpg", "3.jpg"],
        ["cat/1.jpg", "dog/black/2.jpg"],
        ["train/1.jpg", "val/2.jpg"],
        ["train2017/1.jpg", "val2017/2.jpg"],
        ["00000/1.jpg", "00001/2.jpg"],
        ["2021-05/1.jpg", "2021-06/2.jpg"],
        ["images/1.jpg", "cat/2.jpg"],
        ["a.jpg"],
    ],
)
def test_other_nested_folders_are_no_classes_unless_asked(tmp_path: Path, keys: list[str]) -> None:
    source = put(tmp_path / "in", {key: jpeg(i) for i, key in enumerate(keys)})
    assert detected(str(source)).NAME == "folder"
    ingest(str(source), str(tmp_path / "out"), format="classes")
    expected = {key: [key.split("/")[0]] if "/" in key else [] for key in keys}
    assert texts(tmp_path / "out") == expected


def test_an_image_in_two_classes_has_both_labels_and_in_one_twice_one(tmp_path: Path) -> None:
    files = {"cat/1.jpg": jpeg(1), "cat/copy.jpg": jpeg(1), "pet/1.jpg": jpeg(1), "pet/2.jpg": jpeg(2)}
    summary = ingest(str(put(tmp_path / "in", dict(files))), str(tmp_path / "out"))
    assert (summary.images, summary.keys, summary.labels) == (2, 4, {"human": 3})
    assert texts(tmp_path / "out") == {"cat/1.jpg": ["cat", "pet"], "pet/2.jpg": ["pet"]}


def test_every_shard_has_its_labels_under_its_own_name(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{c}{i}/{i}.jpg": jpeg(i) for i, c in enumerate("abcdefg")})
    put(source, {"zero.jpg": jpeg(100), "zz.jpg": jpeg(101)})
    ingest(str(source), str(tmp_path / "out"), format="classes", shard_size=4)
    from tests.ingested import everything

    found = everything(str(tmp_path / "out"))
    for shard in ("00000", "00001", "00002"):
        ids = {row["image_id"] for row in found[f"images/{shard}.parquet"][1]}
        said = found[f"annotations/human/{shard}.parquet"][1]
        assert {row["image_id"] for row in said} <= ids
    assert found["annotations/human/00002.parquet"][1] == []
