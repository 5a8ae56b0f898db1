"""What goes to an object store goes there whole, also where it is larger than what is held in memory."""

from __future__ import annotations

import hashlib
from typing import IO

import pytest

from data_engine import storage
from data_engine.storage import Store


def test_a_large_file_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_SPOOL_BYTES", 1000)
    monkeypatch.setattr(storage, "_COPY_BYTES", 64)
    store = Store("memory://upload/large")
    parts = [hashlib.sha256(bytes([i])).digest() for i in range(200)]

    def fill(stream: IO[bytes]) -> None:
        for part in parts:
            stream.write(part)

    store.write("a/b.bin", fill)
    assert store.read("a/b.bin") == b"".join(parts)


def test_nothing_appears_when_the_writer_fails() -> None:
    store = Store("memory://upload/failing")

    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        store.write("a.bin", fail)
    assert not store.exists("a.bin")
