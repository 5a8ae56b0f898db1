"""Tars as img2dataset writes them, and tars that somebody made to do harm."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.errors import SourceError
from data_engine.image_bytes import ByteReader
from data_engine.ingest.item import Unit
from data_engine.ingest.run import ingest
from data_engine.ingest.webdataset import items
from tests.ingested import by_key, everything, failures, images, labels
from tests.picture_files import jpeg, png, put


def tar(members: dict[str, bytes | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                data.name = name
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def samples(first: int, count: int) -> dict[str, bytes | tarfile.TarInfo]:
    found: dict[str, bytes | tarfile.TarInfo] = {}
    for i in range(first, first + count):
        key = f"{i:09d}"
        found[f"{key}.jpg"] = jpeg(i)
        found[f"{key}.json"] = json.dumps(
            {"url": f"u{i}", "caption": f"json {i}", "nan": float("nan")}
        ).encode()
        found[f"{key}.txt"] = f"alt text {i} ü\n".encode()
    return found


def test_images_are_indexed_in_their_place(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"00000.tar": tar(samples(0, 5)), "00001.tar": tar(samples(5, 5))})
    put(source, {"00000_stats.json": '{"count": 5}', "00000.parquet": b"PAR1"})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.format, summary.images, summary.units) == ("webdataset", 10, 2)
    assert (summary.labels, summary.failures) == ({"alt_text": 10}, {})
    found = by_key(tmp_path / "out")
    row = found["00001.tar/000000007.jpg"]
    assert row["uri"] == str(source / "00001.tar") and row["bytes"] is None and row["offset"] % 512 == 0
    with ByteReader() as reader:
        for row in found.values():
            reader.read(row["uri"], row["offset"], row["length"], verify=row["image_id"])
    assert json.loads(row["metadata"]) == {"url": "u9", "caption": "json 9", "nan": None}
    text = labels(tmp_path / "out", "alt_text")[3]
    assert (text["kind"], text["granularity"], text["text"], text["source"]) == (
        "text",
        "brief",
        "alt text 3 ü",
        "alt_text",
    )


@pytest.mark.parametrize("given_as", ["00000.tar", "0000*.tar"])
def test_one_tar_or_a_pattern(tmp_path: Path, given_as: str) -> None:
    source = put(tmp_path / "in", {"00000.tar": tar(samples(0, 2)), "10000.tar": tar(samples(5, 2))})
    ingest(str(source / given_as), str(tmp_path / "out"))
    assert sorted(by_key(tmp_path / "out")) == ["00000.tar/000000000.jpg", "00000.tar/000000001.jpg"]


def test_a_pattern_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no file is called"):
        ingest(str(tmp_path / "*.tar"), str(tmp_path / "out"))


def test_the_caption_of_the_json_stands_in_for_a_missing_txt(tmp_path: Path) -> None:
    members: dict[str, bytes | tarfile.TarInfo] = {
        "a/x.json": b'{"caption": "from json"}',
        "a/x.jpg": jpeg(1),
        "a/y.png": png(2),
        "a/z.jpg": jpeg(3),
        "a/z.json": b"{broken",
        "a/z.txt": b"   ",
        "a/w.seg.png": png(4),
        "a/w.jpg": jpeg(5),
        "a/w.txt": b"a photo",
        "a/w.cls": b"3",
    }
    source = put(tmp_path / "in", {"t.tar": tar(members)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (5, {"bad_annotation": 1})
    ids = {row["image_id"]: key for key, row in by_key(tmp_path / "out").items()}
    said = {ids[row["image_id"]]: row["text"] for row in labels(tmp_path / "out", "alt_text")}
    assert said == {"t.tar/a/x.jpg": "from json", "t.tar/a/w.jpg": "a photo"}


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type = kind
    info.linkname = target
    return info


def test_members_that_could_do_harm_are_refused_and_nothing_is_unpacked(tmp_path: Path) -> None:
    members: dict[str, bytes | tarfile.TarInfo] = {
        "folder": special(tarfile.DIRTYPE),
        "folder/good.jpg": jpeg(1),
        "../escape.jpg": jpeg(2),
        "a/../../escape.jpg": jpeg(3),
        "/absolute.jpg": jpeg(4),
        "..\\escape.jpg": jpeg(5),
        "C:\\windows.jpg": jpeg(6),
        "link.jpg": special(tarfile.SYMTYPE, "/etc/passwd"),
        "hard.jpg": special(tarfile.LNKTYPE, "folder/good.jpg"),
        "device.jpg": special(tarfile.CHRTYPE),
        "pipe.jpg": special(tarfile.FIFOTYPE),
        "last.jpg": jpeg(7),
    }
    source = put(tmp_path / "in", {"t.tar": tar(members)})
    before = sorted(tmp_path.rglob("*"))
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (2, {"unsafe_member": 9})
    assert sorted(by_key(tmp_path / "out")) == ["t.tar/folder/good.jpg", "t.tar/last.jpg"]
    assert sorted(p for p in tmp_path.rglob("*") if "out" not in p.parts) == before
    assert all(".." not in f["key"] for f in failures(tmp_path / "out"))


@pytest.mark.parametrize("cut", [700, 1536, 3000, -512 * 20])
def test_a_cut_tar_gives_what_stands_before_the_cut(tmp_path: Path, cut: int) -> None:
    whole = tar(samples(0, 4))
    source = put(tmp_path / "in", {"a.tar": whole[:cut], "b.tar": tar(samples(9, 2))})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert summary.failures == {"broken_archive": 1}
    (failure,) = failures(tmp_path / "out")
    assert failure["key"] == "a.tar" and failure["uri"] == str(source / "a.tar")
    found = by_key(tmp_path / "out")
    assert {"b.tar/000000009.jpg", "b.tar/000000010.jpg"} <= set(found)
    with ByteReader() as reader:
        for row in found.values():
            reader.read(row["uri"], row["offset"], row["length"], verify=row["image_id"])


def test_garbage_between_members_is_no_silent_end(tmp_path: Path) -> None:
    whole = bytearray(tar({"a.jpg": jpeg(1), "b.jpg": jpeg(2), "c.jpg": jpeg(3)}))
    at = bytes(whole).index(b"b.jpg")
    whole[at : at + 512] = b"garbage!" * 64
    source = put(tmp_path / "in", {"t.tar": bytes(whole)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"broken_archive": 1})


@pytest.mark.parametrize("data", [b"", b"x" * 3000, b"\0" * 100])
def test_a_file_that_is_no_tar_is_one_failure(tmp_path: Path, data: bytes) -> None:
    source = put(tmp_path / "in", {"a.tar": data, "b.tar": tar(samples(0, 1))})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"broken_archive": 1})


def test_a_tar_cut_between_two_members_is_not_taken_for_whole(tmp_path: Path) -> None:
    whole = tar({"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    data_end = 512 + -(-len(jpeg(1)) // 512) * 512
    source = put(tmp_path / "in", {"t.tar": whole[:data_end]})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, {"broken_archive": 1})


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A raw ustar header with a size field of any 12 bytes and a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:108] = b"0000644\0"
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HUGE = b"\x80" + (1 << 40).to_bytes(11, "big")
NEGATIVE = b"\xff" + (-1024).to_bytes(11, "big", signed=True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (header("big.jpg", HUGE), {"too_large": 1, "broken_archive": 1}),
        (header("back.jpg", NEGATIVE), {"broken_archive": 1}),
        (header("pax", HUGE, b"x"), {"broken_archive": 1}),
        (header("pax", NEGATIVE, b"x"), {"broken_archive": 1}),
        (header("long", HUGE, b"L"), {"broken_archive": 1}),
        (header("x", b"00000000000\0", b"L") * 3000, {"broken_archive": 1}),
    ],
    ids=["huge", "negative", "huge pax", "negative pax", "huge long name", "nested long names"],
)
def test_sizes_that_lie_neither_fill_memory_nor_loop(
    tmp_path: Path, body: bytes, reason: dict[str, int]
) -> None:
    good = tar({"a.jpg": jpeg(1)})[: 512 + -(-len(jpeg(1)) // 512) * 512]
    source = put(tmp_path / "in", {"t.tar": good + body + bytes(1024)})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.failures) == (1, reason)


WHOLE = tar(samples(0, 2))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_tar_always_ends_and_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 5))):
        # Headers, mostly: that is where tarfile can be led astray.
        block = data.draw(st.integers(0, len(damaged) // 512 - 1))
        damaged[block * 512 + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(bytes(damaged))
    found = list(items(Unit(0, {"root": str(path.parent), "tar": [path.name, 0, 0]})))
    assert len(found) < 20
    for item in found:
        assert item.error is not None or item.data == bytes(damaged)[item.offset : item.offset + item.length]  # type: ignore[operator]


def test_compressed_tars_get_a_hint(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.tar.gz": b"\x1f\x8b"})
    for given_as in (source, source / "a.tar.gz"):
        with pytest.raises(SourceError, match="compressed") as caught:
            ingest(str(given_as), str(tmp_path / "out"))
        assert "decompress" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_tars_in_an_object_store(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/wds/shards/0.tar", tar(samples(0, 3)))
    ingest("memory://wds/shards", str(tmp_path / "out"), embed=True)
    found = images(tmp_path / "out")
    assert [row["bytes"] for row in found] == [jpeg(i) for i in range(3)]
    assert found[0]["uri"] == "memory://wds/shards/0.tar"


def test_long_names_and_other_tar_dialects(tmp_path: Path) -> None:
    name = "d" * 90 + "/" + "n" * 120 + ".jpg"
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        source = put(tmp_path / f"in{format}", {"t.tar": tar({name: jpeg(1), "ü.jpg": jpeg(2)}, format)})
        ingest(str(source), str(tmp_path / f"out{format}"))
        assert sorted(by_key(tmp_path / f"out{format}")) == [f"t.tar/{name}", "t.tar/ü.jpg"]


def test_a_sample_in_two_tars_is_one_image(tmp_path: Path) -> None:
    source = put(tmp_path / "in", {"a.tar": tar(samples(0, 3)), "b.tar": tar(samples(2, 3))})
    summary = ingest(str(source), str(tmp_path / "out"))
    assert (summary.images, summary.keys, summary.labels) == (5, 6, {"alt_text": 5})
    assert everything(tmp_path / "out")["info"].images == 5


def test_the_header_helper_makes_headers_that_tarfile_reads() -> None:
    good = header("a.jpg", b"00000000003\0") + b"abc".ljust(512, b"\0") + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(good)) as archive:
        assert archive.next().size == 3  # type: ignore[union-attr]
    assert struct.calcsize("512s") == len(header("a", b"00000000000\0"))
