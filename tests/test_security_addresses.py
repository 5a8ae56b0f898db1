"""Addresses that a data set's rows name: what is asked for, of whom, how much of it and for how long."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.addresses import ALLOW, check_uri, is_public
from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, ImageError
from data_engine.image_bytes import ByteReader
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from data_engine.web_bytes import REDIRECTS, fetch
from pipelines.annotate import annotate
from tests.hostile_rows import honest, with_rows
from tests.picture_files import png
from tests.ports import deaf_port

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web_server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """`http://127.0.0.1:PORT` and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def bytes_of(data: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def refusal(uri: str, near: str = "/data/set") -> str:
    try:
        check_uri(uri, near)
    except ImageError as error:
        assert error.reason == "refused_address"
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def nothing_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW, raising=False)


# --- which addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "255.255.255.255", "::", "::1",
        "fe80::1", "fe80::1%lo", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_private_and_metadata_addresses_are_known_in_every_spelling(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_judged_as_itself(address: Any) -> None:
    mapped = f"::ffff:{address}"
    assert is_public(mapped) == is_public(str(address))


def test_public_addresses_are_public() -> None:
    assert all(map(is_public, ["8.8.8.8", "151.101.1.1", "2606:4700::1111", "64:ff9b::808:808"]))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("sftp://127.0.0.1/x.jpg", "no public address"),
        ("ftp://localhost/x.jpg", "no public address"),
        ("hdfs://[::1]:9000/x.jpg", "no public address"),
        ("abfs://container@localhost:10000/x.jpg", "no public address"),
        ("s3://bucket/x.jpg?endpoint_override=evil.example", "credentials"),
        ("s3://bucket/x.jpg?scheme=http&endpoint_override=169.254.169.254", "credentials"),
        ("gs://bucket/x.jpg?endpoint_override=http://evil.example", "credentials"),
        ("abfs://c@account.dfs.core.windows.net/x?blob_storage_authority=evil.example", "credentials"),
        ("zip://x.png::http://169.254.169.254/", "scheme"),
        ("simplecache::http://127.0.0.1/x", "scheme"),
        ("reference://x::http://evil.example/refs.json", "scheme"),
        ("github://org:repo@main/x", "scheme"),
        ("dask://x", "scheme"),
        ("git://x", "scheme"),
        ("local:///etc/passwd", "scheme"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "scheme"),
        ("http://[::1/x", "no address"),
    ],
)
def test_what_rows_may_not_name(uri: str, why: str) -> None:
    assert why in refusal(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a/b.jpg",
        "s3://bucket/a::b.jpg?region=eu-west-1",
        "gs://bucket/x.tar",
        "abfs://container@account.dfs.core.windows.net/x.jpg",
        "https://example.org/x.jpg",
        "memory://x.jpg",
    ],
)
def test_what_rows_may_name(uri: str) -> None:
    assert not refusal(uri)


def test_the_data_sets_own_server_is_allowed() -> None:
    own = "s3://bucket/set?endpoint_override=10.0.0.5:9000&scheme=http"
    assert not refusal("s3://other/x.jpg?endpoint_override=10.0.0.5:9000&scheme=http", own)
    assert "credentials" in refusal("s3://bucket/x.jpg?endpoint_override=10.0.0.6:9000", own)
    assert "credentials" in refusal("s3://bucket/x.jpg?endpoint_override=0.0.0.5:9000", own)
    assert not refusal("hdfs://127.0.0.1:9000/x.jpg", "hdfs://127.0.0.1:9000/set")
    assert not refusal("mycorp://disk/x.jpg", "mycorp://disk/set")
    assert refusal("mycorp://other/x.jpg", "mycorp://disk/set")


@pytest.mark.parametrize(
    ("allowed", "uri"),
    [
        ("1", "dask://x"),
        ("mycorp://, 10.0.0.0/8", "mycorp://disk/x"),
        ("localhost", "sftp://localhost/x"),
        ("10.0.0.0/8,127.0.0.0/8", "sftp://127.0.0.1/x"),
        ("minio.lan", "s3://bucket/x?endpoint_override=minio.lan:9000"),
        ("minio.lan", "s3://bucket/x?endpoint_override=http://MINIO.lan:9000"),
    ],
)
def test_a_person_can_allow_an_address(monkeypatch: pytest.MonkeyPatch, allowed: str, uri: str) -> None:
    assert refusal(uri)
    monkeypatch.setenv(ALLOW, allowed)
    assert not refusal(uri)
    assert refusal("ftp://[::1]/x") or allowed == "1"


# --- through a whole run


def annotated(dataset: Any) -> tuple[int, dict[str, int]]:
    """Texts, and failures by their reasons, after a run of a specialist that looks at pixels."""
    part = SpecialistPart(use="tests.toy_specialists:Numbers")
    recipe = Recipe(name="toy", specialists={"numbers": part}).check()
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    reasons: dict[str, int] = {}
    for row in dataset.sql("SELECT reason FROM failures").to_pylist():
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    return dataset.sql("SELECT * FROM texts").num_rows, reasons


def test_rows_that_name_a_private_address_cost_themselves_and_ask_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = honest(tmp_path)
    with web_server(bytes_of(png(0))) as (url, asked):
        tar = {"uri": f"{url}/x.tar", "offset": 512, "length": len(png(1))}
        with_rows(dataset, {"uri": f"{url}/x.png"}, tar)
        assert annotated(dataset) == (1, {"refused_address": 2})
        assert asked == []
        monkeypatch.setenv(ALLOW, "127.0.0.0/8")
        (Path(dataset.store.root) / "annotations/numbers/00000.parquet").unlink()
        # The server knows no parts of a file, so the tar's image stays unread.
        assert annotated(dataset) == (2, {"unreadable": 1})
        assert set(asked) == {"/x.png", "/x.tar"}


def test_a_source_at_a_private_address_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own bucket behind a private address, ingested without an environment that names it."""
    dataset = honest(tmp_path)
    place = Path(dataset.store.root) / "dataset.json"
    for source in ("s3://bucket/x?endpoint_override=10.0.0.5:9000", "http://127.0.0.1:9/x"):
        place.write_text(json.dumps({**json.loads(place.read_text()), "source": source}))
        with pytest.raises(DatasetError, match="are not read") as raised:
            annotated(Dataset.open(dataset.url))
        assert ALLOW in raised.value.hint and not dataset.store.exists("annotations/numbers")
    monkeypatch.setenv(ALLOW, "127.0.0.1")
    assert annotated(Dataset.open(dataset.url)) == (3, {})


def test_the_viewer_asks_nobody_either(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from pipelines.viewer.pictures import Pictures
    from pipelines.viewer.tables import Tables

    with web_server(bytes_of(png(0))) as (url, asked):
        dataset = with_rows(honest(tmp_path), {"uri": f"{url}/x.png"})
        image = dataset.sql("SELECT image_id FROM images").to_pylist()[0]["image_id"]
        pictures = Pictures(Tables(dataset))
        with pytest.raises(ImageError, match="no public address"):
            pictures.jpeg("00000", image, "thumb")
        pictures.close()
    assert asked == []


def test_only_a_persons_own_source_is_read_without_this_check() -> None:
    """Whoever reads for a data set says which one."""
    root = Path(__file__).resolve().parents[1]
    for package in ("data_engine", "specialists", "filters", "pipelines"):
        for path in (root / package).rglob("*.py"):
            if "ingest" not in path.parts:
                assert "ByteReader()" not in path.read_text(encoding="utf-8"), path


# --- local files that are none


def test_a_pipe_and_a_device_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    dataset = with_rows(
        honest(tmp_path, 4),
        {"uri": str(tmp_path / "pipe.png")},
        {"uri": "/dev/zero", "offset": 0, "length": 100},
        {"uri": str(tmp_path)},
    )
    assert annotated(dataset) == (1, {"unreadable": 3})


def test_a_local_file_is_shown_to_nobody_who_does_not_know_it(tmp_path: Path) -> None:
    """Rows may name any file of this machine; one whose digest they cannot say is `changed`, and told no word of."""
    (tmp_path / "secret.txt").write_text(secret := "the password is swordfish")
    dataset = with_rows(honest(tmp_path), {"uri": str(tmp_path / "secret.txt"), "length": len(secret)})
    assert annotated(dataset) == (2, {"changed": 1})
    assert "swordfish" not in repr(dataset.sql("FROM failures").to_pylist())


# --- web servers that mean harm


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW, "localhost")


def named(url: str) -> str:
    """The server by its name, which is allowed; its address is not."""
    return url.replace("127.0.0.1", "localhost")


def problem(url: str, offset: int | None = None, limit: int = 100, seconds: float = 20) -> ImageError:
    with pytest.raises(ImageError) as raised:
        fetch(url, offset, limit, seconds)
    return raised.value


def test_a_redirect_to_a_private_address_is_not_followed(allowed: None) -> None:
    with web_server(bytes_of(b"x" * 10)) as (inside, asked_inside):
        for target in (
            inside,
            f"{inside}/latest/meta-data",
            inside.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        ):
            with web_server(bytes_of(b"", 302, Location=target)) as (url, asked):
                found = problem(f"{named(url)}/x.png")
            assert asked == ["/x.png"] and asked_inside == []
            assert found.reason == "refused_address"
        for target in ("file:///etc/passwd", "gopher://localhost/", "http://", "\x00"):
            with web_server(bytes_of(b"", 302, Location=target.replace("\x00", "http://a b/"))) as (url, _):
                assert problem(f"{named(url)}/x.png").reason == "unreadable"


def test_redirects_end(allowed: None) -> None:
    with web_server(bytes_of(b"", 301, Location="/again")) as (url, asked):
        assert "on and on" in str(problem(f"{named(url)}/x.png"))
        assert len(asked) == REDIRECTS + 1


def test_a_file_and_a_part_of_it(allowed: None) -> None:
    def part(handler: BaseHTTPRequestHandler) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        where = f"bytes {first}-{last}/10"
        bytes_of(b"0123456789"[first : last + 1], 206, Content_Range=where)(handler)

    with web_server(bytes_of(b"0123456789")) as (url, asked):
        assert fetch(f"{named(url)}/a%20b?x=1", None, 100) == b"0123456789"
        assert fetch(named(url), None, 4) == b"0123"
        assert fetch(f"{named(url)}/grün b?q=ä", None, 4) == b"0123"
        assert asked == ["/a%20b?x=1", "/", "/gr%C3%BCn%20b?q=%C3%A4"]
    with web_server(part) as (url, _):
        assert fetch(named(url), 2, 3) == b"234"


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65_536)
    except OSError:
        pass


def dripping(handler: BaseHTTPRequestHandler) -> None:
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            handler.wfile.write(b"x")
            threading.Event().wait(0.02)
    except OSError:
        pass


def test_a_reply_without_end_is_read_as_far_as_wanted(allowed: None) -> None:
    with web_server(endless) as (url, _):
        assert len(fetch(named(url), None, 1 << 20)) == 1 << 20


def test_a_reply_that_drips_is_cut(allowed: None) -> None:
    with web_server(dripping) as (url, _):
        assert problem(named(url), seconds=0.5).reason == "unreadable"


@pytest.mark.parametrize(
    ("answer", "offset", "reason"),
    [
        (bytes_of(b"", 404), None, "missing"),
        (bytes_of(b"", 410), None, "missing"),
        (bytes_of(b"", 403), None, "unreadable"),
        (bytes_of(b"", 204), None, "unreadable"),
        (bytes_of(b"x" * 100, Content_Encoding="gzip"), None, "unreadable"),
        (bytes_of(b"x" * 100), 5, "unreadable"),
        (bytes_of(b"x" * 100, 206, Content_Range="bytes 0-99/100"), 5, "unreadable"),
        (bytes_of(b"x" * 100, 206, Content_Range="nonsense"), 5, "unreadable"),
    ],
)
def test_other_answers_are_one_failure(
    allowed: None, answer: Answer, offset: int | None, reason: str
) -> None:
    with web_server(answer) as (url, _):
        assert problem(named(url), offset).reason == reason


def test_what_may_pass_is_asked_again(allowed: None) -> None:
    answers = [bytes_of(b"", 503), bytes_of(b"y")]
    with web_server(lambda handler: answers.pop(0)(handler)) as (url, asked):
        assert fetch(named(url), None, 10) == b"y" and len(asked) == 2


def test_a_server_that_hangs_up_is_one_failure(allowed: None) -> None:
    with deaf_port() as port:
        assert problem(f"http://localhost:{port}/", seconds=0.3).reason == "unreadable"


def test_a_reader_of_rows_uses_all_this(allowed: None) -> None:
    with web_server(endless) as (url, _), ByteReader(rows_of="/data/set") as reader:
        with pytest.raises(ImageError) as raised:
            reader.read(f"{named(url)}/x.png", None, 10)
        assert raised.value.reason == "changed"
        with pytest.raises(ImageError) as raised:
            reader.read(f"{url}/x.png", 0, 10)
        assert raised.value.reason == "refused_address"
