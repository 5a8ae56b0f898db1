"""A real S3 server over HTTP, in a process of its own, with one bucket called `bucket`."""

from __future__ import annotations

import atexit
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

from data_engine.environment import environment
from tests.ports import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "toy",
    "AWS_SECRET_ACCESS_KEY": "toy",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client says, as environment; the server takes any."""


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a running server (`http://127.0.0.1:PORT`); stopped at the end."""
    for _ in range(3):
        port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        # Its access log would fill a pipe that nobody reads.
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port}"
            if _make_bucket(server, address, "bucket"):
                yield address
                return
        finally:
            server.terminate()
            server.wait()
    raise RuntimeError("the S3 server ended at once, three times")


@cache
def shared_server() -> str:
    """The address of one server for all tests of this process; each uses names of its own in the bucket."""
    running = ExitStack()
    address = running.enter_context(s3_server())
    atexit.register(running.close)
    return address


def _make_bucket(server: subprocess.Popen[bytes], address: str, name: str) -> bool:
    """Make a bucket once the server answers. False where the server ended: another has taken its port."""
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{address}/{name}", method="PUT")):
                return server.poll() is None
        except OSError:
            if server.poll() is not None:
                return False
            time.sleep(0.1)


@contextmanager
def s3_environment(address: str, patience: float = 60) -> Iterator[None]:
    """This process and those that it starts talk to the S3 at an address."""
    wanted = {**CREDENTIALS, "AWS_ENDPOINT_URL": address, "FDE_STORAGE_PATIENCE": str(patience)}
    with environment(wanted):
        yield
