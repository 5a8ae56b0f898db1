"""The bytes of an indexed image: from the file, the tar or the shard in which the index says they are."""

from __future__ import annotations

import contextlib
import errno
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs

from data_engine.addresses import WEB, check_uri
from data_engine.errors import ImageError, StorageError
from data_engine.image import image_id_of
from data_engine.patience import patiently
from data_engine.remote import PatientFile, is_fsspec, native, opened
from data_engine.storage import is_local, local_path, resolve
from data_engine.web_bytes import fetch

MAX_BYTES = 512 * 1024 * 1024
"""The largest image file that is read, in bytes; a larger one is refused as `too_large`."""

_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
"""What is wrong with this process or machine then, and says nothing of an image."""


@dataclass(slots=True)
class _Container:
    """An open tar. It is closed when nobody reads from it any more, also if dropped from the list before."""

    file: Any
    users: int = 0
    dropped: bool = False


@dataclass(slots=True)
class _Root:
    """A remote file system, and what stands before a URL's own path in its paths."""

    filesystem: pa.fs.FileSystem
    prefix: str


class ByteReader:
    """Reads image bytes by address. A context manager; safe to call from several threads at once.

    A few containers (tars) stay open between calls, since neighbours in a shard lie in the same one;
    an image that is a file of its own is opened and closed.

    `rows_of` is the URL of the data set whose rows say the addresses, which are then held against what rows may
    name (data_engine.addresses); None where a person named the source.
    """

    def __init__(self, open_containers: int = 4, *, rows_of: str | None = None) -> None:
        self._limit = open_containers
        self._rows_of = rows_of
        self._containers: OrderedDict[str, _Container] = OrderedDict()
        self._roots: dict[tuple[str, str, str], _Root] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ByteReader:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for uri in list(self._containers):
                self._drop(uri)

    def read(
        self,
        uri: str | None,
        offset: int | None,
        length: int | None,
        embedded: bytes | None = None,
        verify: str | None = None,
    ) -> bytes:
        """The bytes at one address; `embedded` is given back as it is where the data set holds the bytes.

        `length` None reads the whole file. With `verify`, an image_id, the bytes' digest must be that.
        Raises ImageError: `missing` (the file is gone), `changed` (it is shorter than the index says, a
        whole file has another length, or the digest differs), `too_large`, or `unreadable`. Raises StorageError
        where a store is out of reach or refuses: that says nothing of the image.
        """
        data = self._bytes(uri, offset, length) if embedded is None else bytes(embedded)
        if verify is not None and image_id_of(data) != verify:
            raise ImageError("changed", f"the bytes of {uri} are not those that were ingested")
        return data

    def _bytes(self, uri: str | None, offset: int | None, length: int | None) -> bytes:
        if uri is None:
            raise ImageError("missing", "the row holds neither bytes nor an address")
        if length is not None and length > MAX_BYTES:
            raise ImageError("too_large", f"{length:,} bytes, more than {MAX_BYTES:,}")
        try:
            if offset is None:
                # One byte more than expected, so that a file that grew is noticed.
                data = self._whole(uri, (MAX_BYTES if length is None else length) + 1)
            else:
                data = self._part(uri, offset, MAX_BYTES if length is None else length)
        except FileNotFoundError as error:
            raise ImageError("missing", f"there is no file {uri}") from error
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _OURS:
                raise StorageError(
                    f"cannot open {uri}: {error.strerror}",
                    "raise the limit (ulimit -n) or run fewer actors on this machine, then run the same command again",
                ) from error
            raise ImageError("unreadable", f"cannot read {uri}: {error}") from error
        except StorageError as error:
            # A web server that is gone takes its own images with it, not the run: they come from thousands of hosts.
            if not uri.startswith(WEB):
                raise
            raise ImageError("unreadable", error.message) from error
        if length is None and len(data) > MAX_BYTES:
            raise ImageError("too_large", f"more than {MAX_BYTES:,} bytes")
        if length is not None and len(data) != length:
            raise ImageError("changed", f"{uri} does not hold the {length:,} bytes that were indexed")
        return data

    def _whole(self, uri: str, limit: int) -> bytes:
        if is_local(uri):
            with _regular(uri).open("rb") as file:
                return file.read(limit)
        if self._from_the_web(uri):
            return fetch(uri, None, limit)
        root, path = self._remote(uri)

        def once() -> bytes:
            with opened(native(root.filesystem), path) as remote:
                return bytes(remote.read(limit))

        return patiently(path, once)

    def _part(self, uri: str, offset: int, length: int) -> bytes:
        if self._from_the_web(uri):
            return fetch(uri, offset, length)
        with self._container(uri) as container:
            # A pread: it moves no shared position.
            return bytes(container.file.read_at(length, offset))

    def _from_the_web(self, uri: str) -> bool:
        """Whether a row's address is a web server's that nobody vouches for. Raises ImageError for one refused."""
        if self._rows_of is None or is_local(uri):
            return False
        return not check_uri(uri, self._rows_of) and uri.startswith(WEB)

    @contextlib.contextmanager
    def _container(self, uri: str) -> Iterator[_Container]:
        with self._lock:
            container = self._containers.get(uri)
            if container is None:
                container = self._containers[uri] = self._open(uri)
            container.users += 1
            self._containers.move_to_end(uri)
            while len(self._containers) > self._limit:
                self._drop(next(iter(self._containers)))
        try:
            yield container
        finally:
            with self._lock:
                container.users -= 1
                if container.dropped and not container.users:
                    container.file.close()

    def _open(self, uri: str) -> _Container:
        if is_local(uri):
            return _Container(pa.OSFile(str(_regular(uri))))
        root, path_there = self._filesystem(uri)
        return _Container(PatientFile(native(root.filesystem), path_there))

    def _drop(self, uri: str) -> None:
        container = self._containers.pop(uri)
        container.dropped = True
        if not container.users:
            container.file.close()

    def _remote(self, uri: str) -> tuple[_Root, str]:
        with self._lock:
            return self._filesystem(uri)

    def _filesystem(self, uri: str) -> tuple[_Root, str]:
        """One file system per host or bucket: making one may cost several requests."""
        parts = urlsplit(uri)
        key = (parts.scheme, parts.netloc, parts.query)
        root = self._roots.get(key)
        if root is None:
            filesystem, path = resolve(uri)
            own = _own_path(filesystem, parts.path)
            if not path.endswith(own):
                return _Root(filesystem, ""), path
            root = self._roots[key] = _Root(filesystem, path.removesuffix(own))
        return root, root.prefix + _own_path(root.filesystem, parts.path)


def _regular(uri: str) -> Path:
    """A local file. What is none would be waited for (a pipe), or never end (a device)."""
    path = local_path(uri)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError("unreadable", f"{uri} is no file")
    return path


def _own_path(filesystem: pa.fs.FileSystem, path: str) -> str:
    """Arrow's own file systems take percent-encoded URLs; fsspec takes names as they are."""
    return path if is_fsspec(filesystem) else unquote(path)
