"""What goes to an object store is there whole or not at all, whatever breaks while it is uploaded."""

from __future__ import annotations

import hashlib
import threading
import urllib.error
import urllib.request
from typing import IO

import pytest

from data_engine import storage
from data_engine.errors import StorageError
from data_engine.storage import Store
from tests.s3_proxy import KINDS, s3_proxy
from tests.s3_server import s3_environment, shared_server


@pytest.fixture(scope="module")
def server() -> str:
    return shared_server()


def seen(server: str, name: str) -> bytes | None:
    """What a reader that asks the server itself finds, in one request."""
    # The server looks at who asks, and not at the signature.
    who = "AWS4-HMAC-SHA256 Credential=toy/20260101/us-east-1/s3/aws4_request"
    request = urllib.request.Request(f"{server}/bucket/{name}", headers={"Authorization": who})
    try:
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def test_a_large_file_arrives_whole(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setattr(storage, "_SPOOL_BYTES", 1000)
    parts = [hashlib.sha256(bytes([i])).digest() for i in range(200)]

    def fill(stream: IO[bytes]) -> None:
        for part in parts:
            stream.write(part)

    with s3_environment(server):
        for url in ("memory://upload/large", "s3://bucket/large"):
            store = Store(url)
            stamp = store.write("a/b.bin", fill)
            assert store.read("a/b.bin") == b"".join(parts)
            assert stamp.size == 6400 == store.stamps("a", ".bin")["b.bin"].size


def test_nothing_appears_when_the_writer_fails(server: str) -> None:
    def fail(stream: IO[bytes]) -> None:
        stream.write(b"half")
        raise RuntimeError("stopped")

    with s3_environment(server):
        for url in ("memory://upload/failing", "s3://bucket/failing"):
            with pytest.raises(RuntimeError):
                Store(url).write("a.bin", fail)
            assert not Store(url).exists("a.bin")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stale"])
@pytest.mark.parametrize("size", [1000, pytest.param(12 << 20, marks=pytest.mark.slow)])
def test_a_store_that_never_answers_well_shows_the_old_file_or_the_new_one(
    server: str, kind: str, size: int
) -> None:
    """12 MiB go in parts; 1,000 bytes in one request."""
    old, new = b"o" * size, b"n" * size
    name = f"never/{kind}-{size}"
    with s3_environment(server):
        Store("s3://bucket").write_bytes(name, old)
    with s3_proxy(server, 1.0, kinds=(kind,)) as (address, proxy), s3_environment(address, patience=0.5):
        try:
            Store("s3://bucket").write_bytes(name, new)
        except StorageError as error:
            assert "tried" in error.message
        assert proxy.requests["PUT"] + proxy.requests["POST"] > 0
    assert seen(server, name) in (old, new)


def test_uploads_through_a_store_that_breaks_arrive_and_are_whole_at_every_moment(server: str) -> None:
    wrong: list[int] = []
    ended = threading.Event()
    contents = [bytes([65 + i]) * (500 + i) for i in range(20)]

    def watch() -> None:
        while not ended.is_set():
            found = seen(server, "watched/x")
            if found is not None and found not in contents:
                wrong.append(len(found))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with s3_proxy(server, 0.4, seed=1) as (address, proxy), s3_environment(address):
            store = Store("s3://bucket/watched")
            for content in contents:
                store.write_bytes("x", content)
                assert store.read("x") == content
            assert proxy.faults.total() > 10
    finally:
        ended.set()
        watcher.join()
    assert wrong == []


def test_a_file_server_gets_a_whole_file_under_another_name_and_a_rename(tmp_path) -> None:
    """fsspec's view of a disk stands for file servers: SFTP, SMB and the like."""
    store = Store(f"local://{tmp_path}/served")
    for content in (b"one", b"two!"):
        assert store.write("a/b/x.bin", lambda stream, c=content: stream.write(c)).size == len(content)
        assert (tmp_path / "served/a/b/x.bin").read_bytes() == content
    assert list((tmp_path / "served/.tmp").iterdir()) == []
    store.sweep()
