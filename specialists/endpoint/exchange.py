"""One HTTP POST and its reply, within a time limit that holds for all of it.

Each exchange has a connection of its own: an answer takes a model seconds, a new connection milliseconds,
and one kept open is found closed by the server after any pause. Redirects are reported, never followed:
they would take the key to where nobody sent it.
"""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from data_engine.errors import RecipeError, SpecialistError

MAX_REPLY = 4 << 20
"""Bytes of a reply that are read. A description has a few thousand, with log probabilities some more."""

_CONNECT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


class Endpoint:
    """The place that `base_url` names, with `/chat/completions` after its path. Raises RecipeError.

    A proxy is taken from the environment as by other programs (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
    `headers` go with every request; they are never shown.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        url = _checked(base_url)
        self.host = url.hostname or ""
        self.port = url.port or (443 if url.scheme == "https" else 80)
        self.shown = f"{url.scheme}://{url.netloc}"
        self._path = url.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        self._headers = dict(headers)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._proxy = _proxy(url)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._aborted = False

    def post(self, body: bytes, seconds: float) -> Reply:
        """Send JSON and read the reply, in at most so many seconds from the connection on.

        Raises OSError for everything that can go wrong on the way (TimeoutError, ConnectionError, a name
        that cannot be resolved), and SpecialistError for a certificate that cannot be trusted.
        """
        connection, target, headers = self._connection(min(seconds, _CONNECT_SECONDS))
        try:
            connection.connect()
            sock: socket.socket = connection.sock
            sock.settimeout(seconds)  # of a single read; the timer holds for all of them
            with self._limited(sock, seconds) as late:
                try:
                    connection.request("POST", target, body, headers)
                    reply = _reply(connection.getresponse())
                except (OSError, http.client.HTTPException, ValueError) as error:
                    if late.is_set() or isinstance(error, TimeoutError):
                        raise TimeoutError(f"no answer within {seconds:.3g} s") from error
                    raise
                if late.is_set():  # cut off where a reply may end, as after a header
                    raise TimeoutError(f"no answer within {seconds:.3g} s")
                return reply
        except ssl.SSLCertVerificationError as error:
            raise SpecialistError(
                f"the certificate of {self.shown} cannot be trusted: {error.verify_message}",
                "check base_url; SSL_CERT_FILE names a file with further authorities",
            ) from error
        except (http.client.HTTPException, ValueError) as error:
            # ValueError: a host that is no name, or a TLS socket that was cut under the reader.
            raise ConnectionError(f"the exchange was cut short ({type(error).__name__})") from error
        finally:
            connection.close()

    def abort(self) -> None:
        """Cut every connection, of whatever thread; what is sent from now on fails."""
        with self._lock:
            self._aborted = True
            for sock in self._open:
                _cut(sock)

    @contextmanager
    def _limited(self, sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
        """While it lasts `abort` cuts the socket, and so does the end of the time: the event tells.

        A socket's own time-out is for each read, and a server may send one byte before each.
        """
        late = threading.Event()

        def over() -> None:
            late.set()
            _cut(sock)

        timer = threading.Timer(seconds, over)
        timer.daemon = True
        with self._lock:
            if self._aborted:
                raise ConnectionError("the run has ended")
            self._open.add(sock)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(sock)

    def _connection(self, seconds: float) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """An unopened connection, the request's target, and its headers."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._headers}
        host, port = (self.host, self.port) if self._proxy is None else self._proxy.place
        authority = f"[{self.host}]" if ":" in self.host else self.host
        if self._tls is not None:
            secure = http.client.HTTPSConnection(host, port, timeout=seconds, context=self._tls)
            if self._proxy is not None:
                secure.set_tunnel(authority, self.port, self._proxy.headers)
            return secure, self._path, headers
        plain = http.client.HTTPConnection(host, port, timeout=seconds)
        if self._proxy is None:
            return plain, self._path, headers
        return plain, f"http://{authority}:{self.port}{self._path}", {**headers, **self._proxy.headers}


def _cut(sock: socket.socket) -> None:
    # Not the TLS socket's own method, which takes its state away under the thread that reads from it.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reply(response: http.client.HTTPResponse) -> Reply:
    parts: list[bytes] = []
    size = 0
    while part := response.read(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MAX_REPLY:
            raise ConnectionError(f"the reply has more than {MAX_REPLY >> 20} MiB")
    if response.length:  # read in parts, http.client leaves it to its caller to notice
        raise ConnectionError("the connection was cut within the reply")
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Reply(response.status, headers, b"".join(parts))


def _checked(base_url: str) -> SplitResult:
    """The parts of a URL that may be used. What may hold a password is not repeated in the error."""
    hint = "write it like http://localhost:8000/v1"
    if not isinstance(base_url, str) or not re.fullmatch(r"[!-~]+", base_url):
        raise RecipeError("base_url is no URL: it must be printable ASCII without spaces", hint)
    try:
        url = urlsplit(base_url)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise RecipeError(f"base_url is no URL: {error}", hint) from error
    if url.scheme not in ("http", "https") or not host:
        raise RecipeError("base_url must begin with http:// or https:// and name a host", hint)
    if "@" in url.netloc or url.query or url.fragment:
        raise RecipeError(
            "base_url must not have a user, a query or a fragment",
            "name the environment variable that holds the key as `api_key_env`",
        )
    return url


@dataclass(frozen=True, slots=True)
class _Proxy:
    place: tuple[str, int]
    headers: dict[str, str]


def _proxy(url: SplitResult) -> _Proxy | None:
    host = url.hostname or ""
    address = getproxies().get(url.scheme)
    if not address or host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
        return None
    try:
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        port = proxy.port or 80
    except ValueError:
        proxy, port = urlsplit(""), 0
    if proxy.scheme != "http" or not proxy.hostname:
        raise SpecialistError(
            f"the proxy that the environment names for {url.scheme} cannot be used",
            "only http:// proxies can; NO_PROXY lists hosts that need none",
        )
    headers: dict[str, str] = {}
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return _Proxy((proxy.hostname, port), headers)
