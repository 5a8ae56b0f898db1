"""A reverse proxy before an S3 server that breaks things, by chance and on request.

Kinds of faults:

refuse      the connection is closed before the request reaches the server
half        half of the request's body reaches the server, then both connections are closed
unsaid      the server does what was asked, and the connection is closed instead of its answer
cut         half of the answer's body arrives
500, 503    InternalError and SlowDown, as S3 says them
stale       an older answer to the same listing, where there is one
outage      as `refuse`, of everything for some seconds, from the requests of given numbers on
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("refuse", "half", "unsaid", "cut", "500", "503", "stale")

_SAID = {"500": "InternalError", "503": "SlowDown"}
_OWN_HOP = ("connection", "transfer-encoding", "keep-alive", "expect")


class Proxy:
    """`address` is where clients go; `faults` counts what was done to them, `requests` all that they asked.

    `rate` is the share of requests that meet a fault, `kinds` the faults among which is chosen, evenly.
    `outages` are numbers of requests at which the server is away for `outage_seconds`.
    """

    def __init__(self, upstream: str, rate: float, seed: int, kinds: tuple[str, ...] = KINDS) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.rate = rate
        self.kinds = kinds
        self.faults: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.asked: list[str] = []
        self.outages: list[int] = []
        self.outage_seconds = 0.0
        self._away_until = 0.0
        self._random = random.Random(seed)
        self._listings: dict[str, list[tuple[int, list[tuple[str, str]], bytes]]] = {}
        self._lock = threading.Lock()

    def fault(self, listing: bool, has_body: bool) -> str:
        with self._lock:
            if self.outages and self.requests.total() >= self.outages[0]:
                self.outages.pop(0)
                self._away_until = time.monotonic() + self.outage_seconds
            if time.monotonic() < self._away_until:
                return "outage"
            # Listings are few among the requests, and only some have an older answer.
            if listing and "stale" in self.kinds and self._random.random() < 5 * self.rate:
                return "stale"
            if self._random.random() >= self.rate:
                return ""
            possible = [
                kind for kind in self.kinds if (listing or kind != "stale") and (has_body or kind != "half")
            ]
            return self._random.choice(possible) if possible else ""

    def happened(self, kind: str) -> None:
        with self._lock:
            self.faults[kind] += 1

    def older(self, path: str) -> tuple[int, list[tuple[str, str]], bytes] | None:
        """Any earlier answer to the same listing."""
        with self._lock:
            before = self._listings.get(path)
            return self._random.choice(before) if before else None

    def remember(self, path: str, answer: tuple[int, list[tuple[str, str]], bytes]) -> None:
        with self._lock:
            self._listings.setdefault(path, []).append(answer)


@contextmanager
def s3_proxy(
    upstream: str, rate: float, seed: int = 0, kinds: tuple[str, ...] = KINDS
) -> Iterator[tuple[str, Proxy]]:
    """The address of a proxy before `upstream`, and what it counts."""
    proxy = Proxy(upstream, rate, seed, kinds)
    server = _Server(("127.0.0.1", 0), _handler(proxy))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is nothing to print a traceback for."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        upstream: http.client.HTTPConnection | None = None

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: thousands of lines."""

        def finish(self) -> None:
            super().finish()
            self._hang_up()

        def _hang_up(self) -> None:
            if self.upstream is not None:
                self.upstream.close()
                self.upstream = None

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _serve(self) -> None:
            body = self._body()
            listing = self.command == "GET" and "list-type=2" in self.path
            proxy.requests[self.command] += 1
            proxy.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            fault = proxy.fault(listing, len(body) > 1)
            if fault in ("refuse", "outage"):
                proxy.happened(fault)
                self._cut()
                return
            if fault in _SAID:
                proxy.happened(fault)
                said = f"<?xml version='1.0'?><Error><Code>{_SAID[fault]}</Code></Error>".encode()
                self._answer(int(fault), [("Content-Type", "application/xml")], said)
                return
            if fault == "half":
                proxy.happened(fault)
                self._send_half(body)
                self._cut()
                return
            if fault == "stale" and (older := proxy.older(self.path)):
                proxy.happened(fault)
                self._answer(*older)
                return
            answer = self._ask(body)
            if listing and answer[0] == 200:
                proxy.remember(self.path, answer)
            if fault == "unsaid":
                proxy.happened(fault)
                self._cut()
            elif fault == "cut" and len(answer[2]) > 1 and self.command != "HEAD":
                proxy.happened(fault)
                self._answer(*answer, upto=len(answer[2]) // 2)
                self._cut()
            else:
                self._answer(*answer)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the library's names

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # Handed on as it came: what is signed are the chunks.
            whole = b""
            while True:
                line = self.rfile.readline()
                size = int(line.split(b";")[0], 16)
                whole += line + self.rfile.read(size + 2)
                if size == 0:
                    return whole

        def _headers(self) -> list[tuple[str, str]]:
            mine = [(k, v) for k, v in self.headers.items() if k.lower() not in _OWN_HOP]
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                mine.append(("Transfer-Encoding", "chunked"))
            return mine

        def _send(self, body: bytes) -> http.client.HTTPConnection:
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection(proxy.upstream, timeout=60)
            self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._headers():
                self.upstream.putheader(name, value)
            self.upstream.endheaders()
            self.upstream.send(body)
            return self.upstream

        def _send_half(self, body: bytes) -> None:
            self._send(body[: len(body) // 2])
            self._hang_up()

        def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            said = self._send(body).getresponse()
            data = said.read()
            headers = [(k, v) for k, v in said.getheaders() if k.lower() not in (*_OWN_HOP, "content-length")]
            if self.command == "HEAD":
                headers.append(("Content-Length", said.getheader("Content-Length", "0")))
            if said.will_close:
                self._hang_up()
            return said.status, headers, data

        def _answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, upto: int | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD" and status not in (204, 304):
                self.send_header("Content-Length", str(len(body)))
            elif self.command == "HEAD" and not any(k.lower() == "content-length" for k, _ in headers):
                self.send_header("Content-Length", "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if upto is None else body[:upto])
            self.wfile.flush()

    return Handler
