"""A folder of images, and what every format shares: content ids, failures, embedding, repeating."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, SourceError
from data_engine.image import image_id_of
from data_engine.image_bytes import ByteReader
from data_engine.ingest.run import ingest
from data_engine.shards import read_provenance
from data_engine.storage import Store
from tests.ingested import by_key, everything, failures, images
from tests.picture_files import encoded, jpeg, pixels, png, png_claiming, put


def test_pictures_in_formats_that_are_not_read_are_told_by_their_suffix(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(1), "b.HEIC": b"?", "c.heic": b"?", "d.bmp": b"BM", "notes.txt": b"no"}
    summary = ingest(str(put(tmp_path / "in", files)), str(tmp_path / "out"))
    assert (summary.images, summary.ignored) == (1, 1)
    assert summary.left_out == {
        ".heic files (not a format that is read)": 2,
        ".bmp files (not a format that is read)": 1,
    }


def test_a_folder_becomes_rows_in_the_order_of_its_paths(tmp_path: Path) -> None:
    source = put(
        tmp_path / "in",
        {
            "b.jpg": jpeg(1),
            "a/z.PNG": png(2),
            "a/y/x.jpeg": jpeg(3),
            "notes.txt": "no",
            ".hidden.jpg": jpeg(4),
        },
    )
    put(source, {".cache/c.jpg": jpeg(5)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.format, summary.images, summary.keys, summary.shards) == ("folder", 3, 3, 1)
    assert (summary.ignored, summary.failures, summary.labels, summary.already) == (1, {}, {}, False)
    found = images(tmp_path / "out")
    assert [row["keys"] for row in found] == [["a/y/x.jpeg"], ["a/z.PNG"], ["b.jpg"]]
    assert found[0] == {
        "image_id": image_id_of(jpeg(3)),
        "keys": ["a/y/x.jpeg"],
        "uri": str(source / "a/y/x.jpeg"),
        "offset": None,
        "length": len(jpeg(3)),
        "bytes": None,
        "width": 24,
        "height": 16,
        "format": "jpeg",
        "metadata": None,
    }
    info = Dataset.open(str(tmp_path / "out")).info
    assert (info.source, info.images, info.shards, info.embedded, info.labels) == (
        str(source),
        3,
        1,
        False,
        [],
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".tmp", "dataset.json", "images"]
    assert list((tmp_path / "out/.tmp").iterdir()) == []


def test_one_file_is_a_source(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    ingest(str(source / "b.jpg"), str(tmp_path / "out"))
    assert [row["keys"] for row in images(tmp_path / "out")] == [["b.jpg"]]


def test_600_images_of_which_one_is_corrupt(tmp_path: Path) -> None:
    files = {f"{i:03d}.jpg": jpeg(i) for i in range(600)}
    files["417.jpg"] = files["417.jpg"][:300]
    source = put(tmp_path / "in", dict(files))
    summary = ingest(str(source), str(tmp_path / "out"), shard_size=250)
    assert (summary.images, summary.shards, sum(summary.failures.values())) == (599, 3, 1)
    found = images(tmp_path / "out")
    assert [row["keys"][0] for row in found] == sorted(set(files) - {"417.jpg"})
    (failure,) = failures(tmp_path / "out")
    assert (failure["key"], failure["stage"], failure["image_id"]) == ("417.jpg", "ingest", None)
    assert failure["uri"] == str(source / "417.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_kind_of_bad_file_is_one_failure_and_no_neighbour_is_lost(tmp_path: Path) -> None:
    bad = {
        "bomb.png": (png_claiming(50_000, 50_000), "too_large"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"not a picture", "not_an_image"),
        "cut.png": (png(1, 200, 200)[:500], "truncated"),
    }
    good = {f"{name}.good.jpg": jpeg(i) for i, name in enumerate(bad)}
    source = put(tmp_path / "in", {**good, **{name: data for name, (data, _) in bad.items()}})
    (source / "gone.jpg").symlink_to(source / "nowhere.jpg")
    os.mkfifo(source / "pipe.jpg")
    summary = ingest(str(source), str(tmp_path / "out"))
    assert summary.images == 4
    reasons = {name: reason for name, (_, reason) in bad.items()} | {"gone.jpg": "missing"}
    assert {f["key"]: f["reason"] for f in failures(tmp_path / "out")} == reasons
    assert all(f["message"] for f in failures(tmp_path / "out"))
    assert sum(summary.failures.values()) == 5


def test_a_name_that_is_not_utf8_is_a_failure(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1)})
    Path(os.fsdecode(os.fsencode(source) + b"/\xff.jpg")).write_bytes(jpeg(2))
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"bad_name": 1})


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"sub/a.jpg": jpeg(1)})
    (source / "sub" / "up").symlink_to(source)
    summary = ingest(str(source), str(tmp_path / "out"))
    assert summary.images == 1


def test_identical_bytes_are_one_image_with_several_keys(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{n}/{i:03d}.jpg": jpeg(i) for n in ("a", "b") for i in range(40)})
    put(source, {"c.jpg": jpeg(7), "a/0.jpg": jpeg(39)})
    summary = ingest(str(source), str(tmp_path / "out"), shard_size=7)
    assert (summary.images, summary.keys, summary.shards) == (40, 82, 6)
    found = images(tmp_path / "out")
    assert found[0]["keys"] == ["a/0.jpg", "a/039.jpg", "b/039.jpg"]
    assert found[8]["keys"] == ["a/007.jpg", "b/007.jpg", "c.jpg"]
    assert found[8]["uri"] == str(source / "a/007.jpg")
    assert len({row["image_id"] for row in found}) == len(found) == 40


def test_shards_hold_as_many_images_as_asked(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i}.png": png(i) for i in range(10)})
    for size, expected in ((5, [5, 5]), (4, [4, 4, 2]), (1, [1] * 10), (10, [10]), (11, [10])):
        out = tmp_path / f"out{size}"
        ingest(str(source), str(out), shard_size=size)
        store = Store(str(out))
        names = store.files("images")
        assert names == [f"{i:05d}.parquet" for i in range(len(expected))]
        provenances = [read_provenance(store, f"images/{name}") for name in names]
        assert [p["rows"] for p in provenances if p] == expected
        assert all(p and p["stage"] == "ingest" and p["fingerprint"] for p in provenances)


def test_embedded_images_are_the_files_bytes(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i:03d}.jpg": jpeg(i) for i in range(150)})
    ingest(str(source), str(tmp_path / "out"), embed=True, shard_size=100)
    found = images(tmp_path / "out")
    assert [row["bytes"] for row in found] == [jpeg(i) for i in range(150)]
    assert found[3]["uri"] == str(source / "003.jpg")
    import pyarrow.parquet as pq

    groups = pq.ParquetFile(tmp_path / "out/images/00000.parquet").metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 64


def test_the_index_reads_back_to_the_image(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1), "b.png": png(2)})
    ingest(str(source), str(tmp_path / "out"))
    with ByteReader() as reader:
        for row in images(tmp_path / "out"):
            data = reader.read(row["uri"], row["offset"], row["length"], row["bytes"], verify=row["image_id"])
            assert data in (jpeg(1), png(2))


def test_doing_it_again_is_done_at_once(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1), "b.jpg": jpeg(1), "c.jpg": b"x"})
    first = ingest(str(source), str(tmp_path / "out"))
    before = everything(tmp_path / "out")
    again = ingest(f"{source}/", str(tmp_path / "out"))
    assert again.already and not first.already
    for name in ("format", "images", "keys", "shards", "failures", "labels"):
        assert getattr(again, name) == getattr(first, name)
    assert everything(tmp_path / "out") == before


def test_another_source_or_other_options_are_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1)})
    other = put(tmp_path / "other", {"a.jpg": jpeg(1)})
    out = str(tmp_path / "out")
    ingest(str(source), out)
    with pytest.raises(DatasetError, match="already holds"):
        ingest(str(other), out)
    with pytest.raises(DatasetError, match="other options"):
        ingest(str(source), out, embed=True)
    with pytest.raises(DatasetError, match="other options"):
        ingest(str(source), out, shard_size=3)
    put(source, {"b.jpg": jpeg(2)})
    with pytest.raises(DatasetError, match="has changed"):
        ingest(str(source), out)


def test_a_folder_with_other_things_in_it_is_no_place_for_a_data_set(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1)})
    for place in (source, put(tmp_path / "full", {"thesis.txt": "all of it"})):
        with pytest.raises(DatasetError, match="not empty"):
            ingest(str(source), str(place))
    assert sorted(p.name for p in source.iterdir()) == ["a.jpg"]


@pytest.mark.parametrize("files", [{}, {"a.jpg": b""}, {"a.jpg": b"no", "b.png": b"neither"}])
def test_a_source_without_a_usable_image_leaves_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "in").mkdir()
    source = put(tmp_path / "in", dict(files))
    with pytest.raises(SourceError) as caught:
        ingest(str(source), str(tmp_path / "out"), format="folder")
    assert "no usable image" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_recognised_says_what_was_looked_for(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.txt": "text", "b.csv": "1,2"})
    with pytest.raises(SourceError) as caught:
        ingest(str(source), str(tmp_path / "out"))
    for name in ("coco", "open_images", "webdataset", "parquet", "classes", "folder"):
        assert name in caught.value.hint
    for absent in (str(tmp_path / "nowhere"), "memory://nowhere/at/all"):
        with pytest.raises(SourceError, match="no file or folder"):
            ingest(absent, str(tmp_path / "out"))
        for format in ("folder", "classes", "coco", "open_images", "webdataset", "parquet"):
            with pytest.raises(SourceError):
                ingest(absent, str(tmp_path / "out"), format=format)
    with pytest.raises(SourceError, match="did you mean 'webdataset'"):
        ingest(str(source), str(tmp_path / "out"), format="webdatset")
    assert not (tmp_path / "out").exists()


def test_every_encoding_is_indexed_under_its_format(tmp_path: Path) -> None:
    formats = {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.gif": "GIF", "e.tif": "TIFF"}
    source = put(tmp_path / "in", {name: encoded(pixels(1), format) for name, format in formats.items()})
    ingest(str(source), str(tmp_path / "out"))
    found = {name: row["format"] for name, row in by_key(tmp_path / "out").items()}
    assert found == {name: format.lower() for name, format in formats.items()}


def test_a_data_set_in_an_object_store(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(5)})
    url = "memory://bucket/from_local"
    ingest(str(source), url, shard_size=2, embed=True)
    ingest(str(source), str(tmp_path / "out"), shard_size=2, embed=True)
    assert everything(url) == everything(tmp_path / "out")
    assert fsspec.filesystem("memory").glob("/bucket/from_local/.ingest/**") == []
    assert ingest(str(source), url, shard_size=2, embed=True).already


def test_a_source_in_an_object_store(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for i in range(5):
        memory.pipe(f"/bucket/pictures/{i % 2}/a b {i}.jpg", jpeg(i))
    ingest("memory://bucket/pictures/", str(tmp_path / "out"))
    found = by_key(tmp_path / "out")
    assert sorted(found) == [f"{i % 2}/a b {i}.jpg" for i in (0, 2, 4, 1, 3)]
    row = found["1/a b 3.jpg"]
    assert row["uri"] == "memory://bucket/pictures/1/a b 3.jpg"
    with ByteReader() as reader:
        assert reader.read(row["uri"], row["offset"], row["length"]) == jpeg(3)


def test_progress_counts_up_to_the_end(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.jpg": jpeg(1), "b.jpg": b"x", "c.jpg": jpeg(2)})
    said: list[tuple[int, int]] = []
    ingest(str(source), str(tmp_path / "out"), progress=lambda *counts: said.append(counts))
    assert said[-1] == (2, 1)


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {f"{i}.jpg": jpeg(i % 30) for i in range(50)})
    for workers in (1, 7):
        ingest(str(source), str(tmp_path / f"out{workers}"), workers=workers, shard_size=8)
    assert everything(tmp_path / "out1") == everything(tmp_path / "out7")
