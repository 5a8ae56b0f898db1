"""Bytes from a web server that a row of a data set names: bounded in size and time, and never from a private address.

fsspec's own client is for servers that one knows: it follows redirects anywhere, inflates what is compressed, and
reads a reply to its end whatever was asked for. Proxies of the environment are not used: one would look up the name
itself, and reach what this machine may not.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from functools import cache
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from data_engine import __version__
from data_engine.addresses import connected
from data_engine.errors import ImageError

SECONDS = 60.0
"""For all of one image: redirects, its bytes, and trying again."""

REDIRECTS = 5
ATTEMPTS = 3
_PAUSE = 0.5
_PART = 1 << 20
_SAFE = "%/:?@!$&'()*+,;=-._~[]|"
"""What is sent as it is written; a blank or a letter beyond ASCII is encoded."""

_GONE = frozenset({404, 410})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})


def fetch(url: str, offset: int | None, limit: int, seconds: float = SECONDS) -> bytes:
    """At most `limit` bytes at `offset` of what lies at a URL, or from its start.

    Raises ImageError: `missing`, `refused_address`, or `unreadable`.
    """
    deadline = time.monotonic() + seconds
    problem = "no time"
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(_PAUSE * 2**attempt, max(0.0, deadline - time.monotonic())))
        if time.monotonic() >= deadline:
            break
        try:
            return _followed(url, offset, limit, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = " ".join(str(error).split())[:300] or type(error).__name__
    raise ImageError("unreadable", f"cannot read {url[:200]}: {problem}")


def _followed(url: str, offset: int | None, limit: int, deadline: float) -> bytes:
    for _ in range(REDIRECTS + 1):
        parts = _parts(url)
        found = _asked(url, parts, offset, limit, deadline)
        if isinstance(found, bytes):
            return found
        target = urljoin(url, found)
        if parts.scheme == "https" and not target.startswith("https://"):
            raise ImageError("unreadable", f"{url[:200]} leads from https to {target[:100]}")
        url = target
    raise ImageError("unreadable", f"{url[:200]} leads on and on")


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\x00-\x1f\x7f]", url):
        raise ImageError("unreadable", f"{url[:200]!r} is no address of a web server")
    return parts


def _asked(url: str, parts: SplitResult, offset: int | None, limit: int, deadline: float) -> bytes | str:
    """The bytes of one exchange, or where it leads to. Raises OSError for what may pass."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    sock = connected(url, host, port, max(0.01, deadline - time.monotonic()))
    # A server that sends a byte now and then is stopped by no time-out of its socket. What is cut reads like the
    # end of a reply.
    late = threading.Event()
    timer = threading.Timer(max(0.01, deadline - time.monotonic()), _cut, (sock, late))
    timer.daemon = True
    timer.start()
    try:
        if parts.scheme == "https":
            sock = _tls().wrap_socket(sock, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = sock
        target = quote(parts.path or "/", safe=_SAFE)
        headers = {"User-Agent": f"florence-data-engine/{__version__}", "Accept-Encoding": "identity"}
        if offset is not None:
            headers["Range"] = f"bytes={offset}-{offset + limit - 1}"
        connection.request(
            "GET", f"{target}?{quote(parts.query, safe=_SAFE)}" if parts.query else target, headers=headers
        )
        with closing(connection), closing(connection.getresponse()) as response:
            if location := _leads_to(response):
                return location
            _check(url, response, offset)
            data = _body(response, limit)
        if late.is_set():
            raise TimeoutError("it took too long")
        return data
    finally:
        timer.cancel()
        sock.close()


def _leads_to(response: http.client.HTTPResponse) -> str:
    return response.headers.get("Location", "") if response.status in (301, 302, 303, 307, 308) else ""


def _check(url: str, response: http.client.HTTPResponse, offset: int | None) -> None:
    status = response.status
    if status in _GONE:
        raise ImageError("missing", f"there is nothing at {url[:200]} (HTTP {status})")
    if status in _PASSING:
        raise OSError(f"HTTP {status}")
    if status != (200 if offset is None else 206):
        raise ImageError("unreadable", f"{url[:200]} answers HTTP {status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageError("unreadable", f"{url[:200]} answers compressed, which was not asked for")
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if offset is not None and (begins is None or int(begins[1]) != offset):
        raise ImageError("unreadable", f"{url[:200]} answers another part than was asked for")


def _body(response: http.client.HTTPResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while size < limit and (part := response.read(min(_PART, limit - size))):
        parts.append(part)
        size += len(part)
    if size < limit and response.length:
        raise OSError("the connection was cut within the reply")
    return b"".join(parts)


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
