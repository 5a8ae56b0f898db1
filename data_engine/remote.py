"""Stores that are not a disk: pyarrow's own (S3, GCS, HDFS, Azure) and whatever fsspec knows, made patient.

What `open_store` gives is a pyarrow filesystem whose every operation, and every read of an opened file, is tried
again while the store stumbles (data_engine.patience). So Parquet, Arrow's datasets and DuckDB read through it too.
"""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.fs

from data_engine.blanked import blanked
from data_engine.errors import StorageError
from data_engine.patience import patiently

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "gcsfs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory"}
"""Stores whose files are names without folders, each put in place by one finished upload."""

_ONE_PUT_BYTES = 5 << 20
"""Up to here a file is one request. Arrow cuts what is larger than 10 MiB into parts."""

_REQUESTS_AGAIN = 2
"""How often Arrow's own S3 client asks again at once, before our patience begins: part by part of an upload."""

_ANSWER_SECONDS = 20.0
_CONNECT_SECONDS = 10.0
"""Arrow's own limits, 3 and 1 seconds, are shorter than a busy store needs."""

T = TypeVar("T")


def open_store(url: str) -> tuple[pa.fs.FileSystem, str]:
    """The filesystem of a URL and the path in it. Raises StorageError for an unknown scheme."""
    try:
        # Arrow may ask where the bucket is.
        inner, path = patiently(blanked(url), lambda: pa.fs.FileSystem.from_uri(url))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        pass
    else:
        return pa.fs.PyFileSystem(_Patient(_quick_to_answer(inner))), path
    try:
        other, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise StorageError(
            f"cannot open {blanked(url)!r}: {error}", "use a path, or a URL whose fsspec package is installed"
        ) from error
    return pa.fs.PyFileSystem(_Patient(pa.fs.PyFileSystem(pa.fs.FSSpecHandler(other)))), path


def _quick_to_answer(inner: pa.fs.FileSystem, **more: Any) -> pa.fs.FileSystem:
    """The same filesystem with few retries of its own: those here are counted, told and bounded."""
    settings = inner.__reduce__()[1][0]
    if inner.type_name == "s3":
        return pa.fs.S3FileSystem(
            **{
                **settings,
                "retry_strategy": pa.fs.AwsDefaultS3RetryStrategy(max_attempts=_REQUESTS_AGAIN),
                "request_timeout": _ANSWER_SECONDS,
                "connect_timeout": _CONNECT_SECONDS,
                **more,
            }
        )
    if inner.type_name == "gcs" and settings["retry_time_limit"] is None:
        return pa.fs.GcsFileSystem._reconstruct({**settings, "retry_time_limit": timedelta(seconds=5)})
    return inner


def native(filesystem: pa.fs.FileSystem) -> pa.fs.FileSystem:
    """What lies below a patient filesystem: its files are read without a lock, and without patience."""
    inner: pa.fs.FileSystem = filesystem.handler.inner
    return inner


def is_fsspec(filesystem: pa.fs.FileSystem) -> bool:
    """Whether a patient filesystem stands on fsspec, and not on one of Arrow's own."""
    return isinstance(native(filesystem), pa.fs.PyFileSystem)


def is_object_store(filesystem: pa.fs.FileSystem) -> bool:
    """Whether an upload replaces a file in one step, and no folder must be made before."""
    inner = native(filesystem)
    if not isinstance(inner, pa.fs.PyFileSystem):
        return inner.type_name in OBJECT_STORES
    names = inner.handler.fs.protocol
    return not OBJECT_STORES.isdisjoint([names] if isinstance(names, str) else names)


def put(filesystem: pa.fs.FileSystem, path: str, data: pa.Buffer) -> None:
    """Upload a whole file, seen by readers complete or not at all.

    Closing Arrow's stream is what finishes an upload, and it is closed by whatever ends its life: an exception or
    a Ctrl-C between two writes would publish half a file. So all the bytes are there before it is opened, they go
    in one write, and this is done by a thread, which no Ctrl-C reaches. Small files are one request. For large
    ones the stream must be opened by a request of its own: one that opens late puts an *empty* file when it is
    closed after its first request failed.
    """
    inner = native(filesystem)
    if inner.type_name == "gcs":
        # Arrow lists a folder of GCS by an empty object of its name.
        folder = path.rpartition("/")[0]
        if folder not in filesystem.handler.folders:
            inner.create_dir(folder, recursive=True)
            filesystem.handler.folders.add(folder)
    if inner.type_name == "s3" and data.size <= _ONE_PUT_BYTES:
        inner = filesystem.handler.one_put
    with ThreadPoolExecutor(1, thread_name_prefix="upload") as alone:
        alone.submit(_put, inner, path, data).result()


def _put(inner: pa.fs.FileSystem, path: str, data: pa.Buffer) -> None:
    if isinstance(inner, pa.fs.PyFileSystem):
        # fsspec's own upload of a whole file, atomic where the store's is.
        inner.handler.fs.pipe_file(path, memoryview(data).tobytes())
        return
    stream = inner.open_output_stream(path)
    stream.write(data)
    stream.close()


class _Patient(pa.fs.FileSystemHandler):  # type: ignore[misc]
    """A filesystem whose operations are tried again."""

    def __init__(self, inner: pa.fs.FileSystem) -> None:
        self.inner = inner
        self.folders: set[str] = set()
        self.one_put = _quick_to_answer(inner, allow_delayed_open=True) if inner.type_name == "s3" else inner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Patient) and self.inner == other.inner

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return str(self.inner.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self.inner.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[pa.fs.FileInfo]:
        return patiently(paths[0] if paths else "", lambda: self.inner.get_file_info(paths))

    def get_file_info_selector(self, selector: pa.fs.FileSelector) -> list[pa.fs.FileInfo]:
        if not isinstance(self.inner, pa.fs.PyFileSystem):
            return patiently(selector.base_dir, lambda: self.inner.get_file_info(selector))
        other = self.inner.handler.fs
        other.invalidate_cache(selector.base_dir)  # some remember what they listed
        return patiently(selector.base_dir, lambda: _listed(other, selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        patiently(path, lambda: self.inner.create_dir(path, recursive=recursive))

    def delete_dir(self, path: str) -> None:
        self.folders.clear()
        _gone(path, lambda: self.inner.delete_dir(path))

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        patiently(path, lambda: self.inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok))

    def delete_root_dir_contents(self) -> None:
        raise OSError("a whole store is not emptied")

    def delete_file(self, path: str) -> None:
        _gone(path, lambda: self.inner.delete_file(path))

    def move(self, src: str, dest: str) -> None:
        patiently(src, lambda: self.inner.move(src, dest))

    def copy_file(self, src: str, dest: str) -> None:
        patiently(src, lambda: self.inner.copy_file(src, dest))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        try:
            return self.open_input_file(path)
        except ValueError:  # a web server that gives no size: to be read once, from its start
            return patiently(path, lambda: self.inner.open_input_stream(path))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(PatientFile(self.inner, path), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise OSError(f"{path} is put in place as a whole (data_engine.storage), not written bit by bit")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        raise OSError(f"{path} is put in place as a whole (data_engine.storage), not appended to")


def _listed(other: Any, selector: pa.fs.FileSelector) -> list[pa.fs.FileInfo]:
    """A listing by fsspec. Arrow's own asks `isdir` and `exists` first, which take a lost connection for a no."""
    found: list[pa.fs.FileInfo] = []
    folders = [selector.base_dir]
    while folders:
        folder = folders.pop()
        try:
            entries = other.ls(folder, detail=True)
        except FileNotFoundError:
            if folder == selector.base_dir and not selector.allow_not_found:
                raise
            continue
        for entry in entries:
            name = entry["name"].rstrip("/")
            if name.strip("/") == folder.strip("/"):
                continue
            found.append(pa.fs.FSSpecHandler._create_file_info(name, entry))
            if selector.recursive and entry["type"] == "directory":
                folders.append(name)
    return found


def opened(inner: pa.fs.FileSystem, path: str) -> pa.NativeFile:
    """A file of a filesystem that is not patient, for reading at any place.

    fsspec is asked itself: `isfile`, which Arrow asks first, takes a lost connection for a no, and so does its
    view of web servers, which tells the cause all the same.
    """
    if not isinstance(inner, pa.fs.PyFileSystem):
        return inner.open_input_file(path)
    try:
        return pa.PythonFile(inner.handler.fs.open(path, mode="rb"), mode="r")
    except FileNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and getattr(cause, "status", None) not in (404, 410):
            raise cause from None
        raise


def _gone(path: str, delete: Callable[[], None]) -> None:
    """Delete; not being there is an error at the first try only: a lost answer may have been to a deletion."""
    tried = 0

    def once() -> None:
        nonlocal tried
        tried += 1
        try:
            delete()
        except OSError as error:
            # GCS says it without a number.
            if not isinstance(error, FileNotFoundError) and "No such directory" not in str(error):
                raise
            if tried == 1:
                raise FileNotFoundError(errno.ENOENT, str(error)) from error

    patiently(path, once)


class PatientFile(io.RawIOBase):
    """A file of a store for reading, at any place and by several threads; opened anew where the connection broke."""

    def __init__(self, inner: pa.fs.FileSystem, path: str) -> None:
        self._inner = inner
        self._path = path
        self._position = 0
        # Over fsspec a read_at is a seek and a read, which two threads must not interleave.
        self._alone = threading.Lock() if isinstance(inner, pa.fs.PyFileSystem) else None
        self._file: pa.NativeFile = patiently(path, lambda: opened(inner, path))
        self._size: int = patiently(path, self._file.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        return self._size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the file's start")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        data = self.read_at(left if size is None or size < 0 else min(size, left), self._position)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_at(self, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer at the file's end only."""
        size = min(size, self._size - offset)
        if size <= 0:
            return b""
        return patiently(self._path, lambda: self._read_at(size, offset))

    def _read_at(self, size: int, offset: int) -> bytes:
        file = self._file
        try:
            if self._alone is None:
                data = bytes(file.read_at(size, offset))
            else:
                with self._alone:
                    data = bytes(file.read_at(size, offset))
            if len(data) < size:
                raise OSError(f"{len(data)} of {size} bytes came")
        except Exception:
            # The handle may be what is broken. The old one stays open for threads that still read from it.
            self._file = opened(self._inner, self._path)
            raise
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
