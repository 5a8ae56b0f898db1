"""What passes is tried again for a bounded time; what stays is said at once."""

from __future__ import annotations

import errno
import time

import pytest

from data_engine.errors import ImageError, StorageError
from data_engine.image_bytes import ByteReader
from data_engine.patience import patiently
from data_engine.storage import Store
from tests.ports import deaf_port
from tests.s3_server import s3_environment, shared_server


@pytest.fixture(scope="module")
def server() -> str:
    return shared_server()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDE_STORAGE_PATIENCE", "0.4")


@pytest.mark.parametrize(
    "said",
    [
        OSError("AWS Error SLOW_DOWN during PutObject operation: "),
        OSError("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."),
        OSError("AWS Error UNKNOWN (HTTP status 429) during GetObject operation"),
        OSError("AWS Error INTERNAL_FAILURE during ListObjectsV2 operation"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        TimeoutError("timed out"),
    ],
)
def test_what_passes_is_tried_until_it_is_gone(said: Exception) -> None:
    answers = iter([said, said, None])
    asked = 0

    def do() -> str:
        nonlocal asked
        asked += 1
        if (answer := next(answers)) is not None:
            raise answer
        return "had"

    assert patiently("x", do) == "had" and asked == 3


@pytest.mark.parametrize(
    ("said", "raised", "match"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), FileNotFoundError, "no"),
        (IsADirectoryError(errno.EISDIR, "folder"), IsADirectoryError, "folder"),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), StorageError, "not allowed to access x"),
        (OSError("AWS Error INVALID_ACCESS_KEY_ID during X"), StorageError, "not allowed to access x"),
        (OSError("AWS Error UNKNOWN (HTTP status 403) during X"), StorageError, "not allowed to access x"),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject"), StorageError, "there is no bucket for x"),
        (OSError("AWS Error UNKNOWN (HTTP status 400) during X"), StorageError, "cannot access x"),
        (KeyError("a defect"), KeyError, "defect"),
    ],
)  # fmt: skip
def test_what_stays_is_said_at_once(said: Exception, raised: type[Exception], match: str) -> None:
    asked = 0

    def do() -> None:
        nonlocal asked
        asked += 1
        raise said

    with pytest.raises(raised, match=match):
        patiently("x", do)
    assert asked == 1


def test_patience_ends_and_says_how_often_it_was_tried(short: None) -> None:
    started = time.monotonic()
    with pytest.raises(
        StorageError, match=r"cannot access x: gone away \(tried \d+ times in \d+ seconds\)"
    ) as caught:
        patiently("x", lambda: (_ for _ in ()).throw(ConnectionError("gone away")))
    assert "FDE_STORAGE_PATIENCE" in caught.value.hint
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FDE_STORAGE_PATIENCE", text)
    with pytest.raises(StorageError, match="is no number of seconds"):
        patiently("x", lambda: (_ for _ in ()).throw(ConnectionError("gone")))


def test_a_server_that_is_not_there_ends_what_was_asked(short: None) -> None:
    with deaf_port() as port, s3_environment(f"http://127.0.0.1:{port}", patience=0.2):
        with pytest.raises(StorageError, match="tried"):
            Store("s3://bucket/x").files("images")
        # Not a failure of the image: the run must end, and the image be looked at when the store is back.
        with ByteReader() as reader, pytest.raises(StorageError, match="tried"):
            reader.read("s3://bucket/x.jpg", None, 10)
        with ByteReader() as reader, pytest.raises(StorageError, match="tried"):
            reader.read("s3://bucket/x.tar", 0, 10)


def test_a_web_server_that_is_gone_costs_its_own_images(short: None) -> None:
    with deaf_port() as port, ByteReader() as reader, pytest.raises(ImageError) as caught:
        reader.read(f"http://127.0.0.1:{port}/x.jpg", None, 10)
    assert caught.value.reason == "unreadable"


def test_a_bucket_that_is_not_there_is_named(server: str) -> None:
    with s3_environment(server):
        with pytest.raises(StorageError, match="there is no bucket for nobucket/ds/x"):
            Store("s3://nobucket/ds").write_bytes("x", b"1")
        with ByteReader() as reader, pytest.raises(ImageError) as caught:
            reader.read("s3://bucket/none.jpg", None, 10)
        assert caught.value.reason == "missing"
