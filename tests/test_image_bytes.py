"""Bytes are read where the index says; what is no longer there is said to be so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from data_engine.errors import ImageError
from data_engine.image import image_id_of
from data_engine.image_bytes import ByteReader


def reason(reader: ByteReader, *address: object, **more: object) -> str:
    with pytest.raises(ImageError) as caught:
        reader.read(*address, **more)  # type: ignore[arg-type]
    return caught.value.reason


def test_a_file_a_part_of_a_file_and_embedded_bytes(tmp_path: Path) -> None:
    file = tmp_path / "ä b%20#.bin"
    file.write_bytes(b"0123456789")
    with ByteReader() as reader:
        assert reader.read(str(file), None, 10) == b"0123456789"
        assert reader.read(str(file), None, None) == b"0123456789"
        assert reader.read(f"file://{file}", 3, 4) == b"3456"
        assert reader.read(None, None, 3, b"abc") == b"abc"
        assert reader.read(str(file), 3, 4, b"abc") == b"abc"


def test_what_is_gone_or_changed_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"0123456789")
    with ByteReader() as reader:
        assert reason(reader, str(tmp_path / "no"), None, 4) == "missing"
        assert reason(reader, str(tmp_path / "no"), 0, 4) == "missing"
        assert reason(reader, None, None, 4) == "missing"
        assert reason(reader, str(file), None, 11) == "changed"
        assert reason(reader, str(file), None, 9) == "changed"
        assert reason(reader, str(file), 8, 4) == "changed"
        assert reason(reader, str(file), 80, 4) == "changed"
        assert reason(reader, str(tmp_path), None, 4) == "unreadable"
        assert reason(reader, str(file), None, 1 << 40) == "too_large"
        assert reason(reader, str(file), None, 10, verify="0" * 32) == "changed"
        assert reader.read(str(file), None, 10, verify=image_id_of(b"0123456789")) == b"0123456789"


def test_remote_files(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/reader/x y/a%20b.bin", b"0123456789")
    uri = "memory://reader/x y/a%20b.bin"
    with ByteReader() as reader:
        for _ in range(2):
            assert reader.read(uri, None, 10) == b"0123456789"
            assert reader.read(uri, 2, 3) == b"234"
        assert reason(reader, "memory://reader/none", None, 3) == "missing"
        assert reason(reader, "memory://reader/none", 1, 3) == "missing"


@pytest.mark.parametrize("where", ["local", "memory"])
def test_threads_share_a_reader_that_keeps_fewer_containers_than_they_read(
    tmp_path: Path, where: str
) -> None:
    uris = []
    for number in range(6):
        data = bytes([number]) * 1000
        if where == "local":
            (tmp_path / f"{number}").write_bytes(data)
            uris.append(str(tmp_path / f"{number}"))
        else:
            fsspec.filesystem("memory").pipe(f"/threads/{number}", data)
            uris.append(f"memory://threads/{number}")

    def one(n: int) -> bool:
        return reader.read(uris[n % 6], n % 900, 100) == bytes([n % 6]) * 100

    with ByteReader(open_containers=2) as reader, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(3000)))
        assert len(reader._containers) <= 2
