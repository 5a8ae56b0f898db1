"""Serve the viewer: one process, one port, until Ctrl-C."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import secrets
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_engine.dataset import Dataset
from data_engine.errors import MissingPackageError, RecipeError, StorageError

_TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,200}")
"""What stands in an address, a cookie and a header as it is, and is not empty."""


@dataclass(frozen=True)
class Address:
    """Where the viewer listens; `url` holds the token where there is one."""

    host: str
    port: int
    token: str | None

    @property
    def url(self) -> str:
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)  # noqa: S104
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")


@contextlib.contextmanager
def serving(
    dataset: Dataset,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    read_only: bool = False,
) -> Iterator[tuple[Address, threading.Thread]]:
    """A server in a thread of its own, ready to answer; it ends with the block.

    Port 0 takes a free one. A host that other machines can reach gets a token where none is given. Raises
    MissingPackageError without the extra `view`, RecipeError for a token that cannot stand in an address, and
    StorageError where the port cannot be had.
    """
    try:
        import uvicorn

        from pipelines.viewer.app import make_app
    except ImportError as error:
        raise MissingPackageError.of(str(error.name), "view") from error
    if token is None and not _is_loopback(host):
        token = secrets.token_urlsafe(24)
    if token is not None and not _TOKEN.fullmatch(token):
        raise RecipeError("this token cannot be used", "give 8 to 200 letters, digits, and -._~")
    listener = _listen(host, port)
    with listener:
        address = Address(host, listener.getsockname()[1], token)
        config = uvicorn.Config(
            make_app(dataset, host, token, read_only),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="viewer", daemon=True)
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield address, thread
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def serve(
    dataset: Dataset,
    host: str,
    port: int,
    token: str | None,
    read_only: bool,
    browser: bool,
    say: Callable[[str], None],
) -> None:
    """Serve until interrupted; says where, and opens a browser if it is to and somebody is there."""
    with serving(dataset, host, port, token, read_only) as (address, thread):
        say(f"{dataset.url} at {address.url}")
        say("read-only; Ctrl-C ends it" if read_only else "Ctrl-C ends it")
        if browser and sys.stdout.isatty():  # where nobody sits, a browser may be one for terminals
            webbrowser.open(address.url)
        with contextlib.suppress(KeyboardInterrupt):
            # No join: one that a signal ends takes the thread for ended (Python 3.11), and the process would
            # end before its server has.
            while thread.is_alive():
                time.sleep(0.5)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise StorageError(
            f"cannot listen on {host}:{port}: {error}", "choose another --port or --host"
        ) from error
