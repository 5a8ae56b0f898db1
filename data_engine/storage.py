"""Files under one URL, on this machine or any object store, written whole or not at all.

A local file is written under `.tmp/`, synced, and renamed into place. On an object store the bytes
are put in one upload, which either finishes or leaves nothing that a reader can see.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.fs

from data_engine.errors import StorageError

_STALE_SECONDS = 24 * 3600
_SPOOL_BYTES = 64 << 20
_COPY_BYTES = 8 << 20


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    return Path(url.removeprefix("file://")).expanduser().absolute()


def resolve(url: str) -> tuple[pa.fs.FileSystem, str]:
    """The filesystem of a URL and the path in it.

    pyarrow's own filesystems come first (s3, gs, hdfs, ...), then whatever fsspec knows.
    Raises StorageError for an unknown scheme.
    """
    if is_local(url):
        return pa.fs.LocalFileSystem(), str(local_path(url))
    try:
        filesystem, path = pa.fs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        pass
    else:
        return filesystem, path
    try:
        other, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise StorageError(
            f"cannot open {url!r}: {error}", "use a path, or a URL whose fsspec package is installed"
        ) from error
    return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(other)), path


@contextlib.contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn what a disk or store says into one StorageError that tells what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(
                f"no space left for {what}",
                "free some space, then run the same command again: finished shards are kept",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(
                f"not allowed to write {what}: {error.strerror}", "check the folder's permissions"
            ) from error
        raise StorageError(
            f"cannot access {what}: {error}", "check the path or the connection, then run the command again"
        ) from error


@dataclass(frozen=True)
class Store:
    """A folder at a URL; names inside it are relative, with forward slashes."""

    url: str
    filesystem: pa.fs.FileSystem = field(init=False, repr=False, compare=False)
    root: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        filesystem, path = resolve(self.url)
        object.__setattr__(self, "filesystem", filesystem)
        object.__setattr__(self, "root", path.rstrip("/"))

    def __reduce__(self) -> tuple[Any, ...]:
        # Filesystem handles do not travel between processes; the URL does.
        return (Store, (self.url,))

    @property
    def local(self) -> bool:
        return is_local(self.url)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def exists(self, name: str) -> bool:
        with storage_errors(self.path(name)):
            return bool(self.filesystem.get_file_info(self.path(name)).type != pa.fs.FileType.NotFound)

    def files(self, folder: str, suffix: str = ".parquet") -> list[str]:
        """Sorted names (not paths) of a folder's files; empty when there is no such folder."""
        selector = pa.fs.FileSelector(self.path(folder), allow_not_found=True)
        with storage_errors(self.path(folder)):
            found = self.filesystem.get_file_info(selector)
        return sorted(
            f.base_name for f in found if f.type == pa.fs.FileType.File and f.base_name.endswith(suffix)
        )

    def folders(self, folder: str) -> list[str]:
        """Sorted names of a folder's folders, hidden ones left out; empty when there is no such folder."""
        selector = pa.fs.FileSelector(self.path(folder), allow_not_found=True)
        with storage_errors(self.path(folder)):
            found = self.filesystem.get_file_info(selector)
        names = (f.base_name for f in found if f.type == pa.fs.FileType.Directory)
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        with storage_errors(self.path(name)), self.filesystem.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def open(self, name: str) -> pa.NativeFile:
        """A file for random access. Raises StorageError when it is not there."""
        with storage_errors(self.path(name)):
            return self.filesystem.open_input_file(self.path(name))

    def write(self, name: str, writer: Callable[[IO[bytes]], None]) -> None:
        """Put a file in place in one step. `writer` fills it; if that raises, nothing appears."""
        with storage_errors(self.path(name)):
            if self.local:
                self._write_local(name, writer)
            else:
                self._upload(name, writer)

    def _upload(self, name: str, writer: Callable[[IO[bytes]], None]) -> None:
        """Finish the file here first, on disk where it is large, so that half of one is never uploaded."""
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as whole:
            writer(whole)
            whole.seek(0)
            self.filesystem.create_dir(str(PurePosixPath(self.path(name)).parent), recursive=True)
            with self.filesystem.open_output_stream(self.path(name)) as stream:
                shutil.copyfileobj(whole, stream, _COPY_BYTES)

    def write_bytes(self, name: str, data: bytes) -> None:
        def fill(stream: IO[bytes]) -> None:
            stream.write(data)

        self.write(name, fill)

    def delete(self, name: str) -> None:
        """Remove a file; it is no error when it is not there."""
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(name))

    def delete_folder(self, name: str) -> None:
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path(name))

    def sweep(self) -> None:
        """Remove what a killed writer left half-written more than a day ago."""
        folder = Path(self.root) / ".tmp"
        if not self.local or not folder.is_dir():
            return
        for left in folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _write_local(self, name: str, writer: Callable[[IO[bytes]], None]) -> None:
        target = Path(self.path(name))
        temporary = Path(self.root) / ".tmp" / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                writer(stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
