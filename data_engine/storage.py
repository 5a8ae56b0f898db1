"""Files under one URL, on this machine or any object store, written whole or not at all.

A local file is written under `.tmp/`, synced, and renamed into place. On an object store the bytes
are put in one upload, which either finishes or leaves nothing that a reader can see. On other remote
stores (a file server) they are uploaded under `.tmp/` and renamed. What a store refuses for a moment is
tried again (data_engine.remote).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs

from data_engine.blanked import blanked
from data_engine.confined import confined
from data_engine.errors import StorageError
from data_engine.literal_secrets import HINT, secret_in_url
from data_engine.patience import patiently
from data_engine.remote import is_object_store, open_store, put

_STALE_SECONDS = 24 * 3600
_SPOOL_BYTES = 64 << 20
_WHEN_FULL = "free some space, then run the same command again: finished shards are kept"

AHEAD_BYTES = 4 << 20
"""What is read at a time of a file that is read from its start to its end: each read is a request to a store."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a listing says of a file: its size in bytes, and its modification time in nanoseconds where known.

    A store's times are cut to seconds: S3 says them so for a file, and finer in some listings.
    """

    size: int
    mtime: int | None

    @classmethod
    def of(cls, info: pa.fs.FileInfo, local: bool) -> Stamp:
        mtime = info.mtime_ns
        return cls(info.size, mtime if local or mtime is None else mtime // 10**9 * 10**9)


def is_local(url: str) -> bool:
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    return Path(url.removeprefix("file://")).expanduser().absolute()


def resolve(url: str) -> tuple[pa.fs.FileSystem, str]:
    """The filesystem of a URL and the path in it.

    pyarrow's own filesystems come first (s3, gs, hdfs, ...), then whatever fsspec knows.
    Raises StorageError for an unknown scheme, and for a URL that holds a secret.
    """
    if is_local(url):
        return pa.fs.LocalFileSystem(), str(local_path(url))
    if secret := secret_in_url(url):
        shown = blanked(url.partition("?")[0])
        raise StorageError(f"{shown}: {secret} would be stored with everything that is read from it", HINT)
    return open_store(url)


@contextlib.contextmanager
def storage_errors(what: str, when_full: str = _WHEN_FULL) -> Iterator[None]:
    """Turn what a disk or store says into one StorageError that tells what to do; `when_full` where space is short."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(f"no space left for {what}", when_full) from error
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
        return sorted(
            f.base_name for f in self._listed(folder, pa.fs.FileType.File) if f.base_name.endswith(suffix)
        )

    def stamps(self, folder: str, suffix: str = ".parquet") -> dict[str, Stamp]:
        """The names of a folder's files, and what the same one listing says of each."""
        found = self._listed(folder, pa.fs.FileType.File)
        return {f.base_name: Stamp.of(f, self.local) for f in found if f.base_name.endswith(suffix)}

    def folders(self, folder: str) -> list[str]:
        """Sorted names of a folder's folders, hidden ones left out; empty when there is no such folder."""
        names = (f.base_name for f in self._listed(folder, pa.fs.FileType.Directory))
        return sorted(name for name in names if not name.startswith("."))

    def _listed(self, folder: str, type_: pa.fs.FileType) -> list[pa.fs.FileInfo]:
        selector = pa.fs.FileSelector(self.path(folder), allow_not_found=True)
        with storage_errors(self.path(folder)):
            return [found for found in self.filesystem.get_file_info(selector) if found.type == type_]

    def read(self, name: str) -> bytes:
        with storage_errors(self.path(name)), self.filesystem.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def open(self, name: str) -> pa.NativeFile:
        """A file for random access. Raises StorageError when it is not there."""
        with storage_errors(self.path(name)):
            return self.filesystem.open_input_file(self.path(name))

    def write(self, name: str, writer: Callable[[IO[bytes]], None]) -> Stamp:
        """Put a file in place in one step. `writer` fills it; if that raises, nothing appears."""
        with storage_errors(self.path(name)):
            return self._write_local(name, writer) if self.local else self._upload(name, writer)

    def _upload(self, name: str, writer: Callable[[IO[bytes]], None]) -> Stamp:
        """Finish the file here first, on disk where it is large, so that half of one is never uploaded."""
        path = self.path(name)
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as whole:
            writer(whole)
            size = whole.seek(0, os.SEEK_END)
            if size > _SPOOL_BYTES:
                whole.flush()
                data = pa.py_buffer(mmap.mmap(whole.fileno(), size, access=mmap.ACCESS_READ))
            else:
                whole.seek(0)
                data = pa.py_buffer(whole.read())
            return patiently(path, lambda: self._put(path, data))

    def _put(self, path: str, data: pa.Buffer) -> Stamp:
        if is_object_store(self.filesystem):
            put(self.filesystem, path, data)
        else:
            temporary = self.path(f".tmp/{uuid.uuid4().hex}")
            for folder in (temporary, path):
                self.filesystem.create_dir(str(PurePosixPath(folder).parent), recursive=True)
            put(self.filesystem, temporary, data)
            self._move(temporary, path)
        info = self.filesystem.get_file_info(path)
        if info.type != pa.fs.FileType.File or info.size != data.size:
            raise OSError(f"{info.size} bytes are there of {data.size:,} that were uploaded")
        return Stamp.of(info, local=False)

    def _move(self, source: str, target: str) -> None:
        try:
            self.filesystem.move(source, target)
        except OSError:
            # Some file servers do not rename onto a file: for a moment there is none, but never half of one.
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_file(target)
            self.filesystem.move(source, target)

    def write_bytes(self, name: str, data: bytes) -> None:
        def fill(stream: IO[bytes]) -> None:
            stream.write(data)

        self.write(name, fill)

    def delete(self, name: str) -> None:
        """Remove a file; it is no error when it is not there."""
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self._own(name))

    def delete_folder(self, name: str) -> None:
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self._own(name))

    def _own(self, name: str) -> str:
        """The path of a name that is written or removed. Raises StorageError where a link leads out of the folder."""
        path = self.path(name)
        return str(confined(Path(self.root), Path(path))) if self.local else path

    def sweep(self) -> None:
        """Remove what a killed writer left half-written more than a day ago."""
        if not self.local:
            if not is_object_store(self.filesystem):
                self._sweep_remote()
            return
        folder = Path(self.root) / ".tmp"
        if not folder.is_dir() or folder.is_symlink():  # what a link leads to is not ours to empty
            return
        try:
            now = _time_of(folder)
        except OSError:
            return  # a full or read-only disk: the command itself will say so
        for left in folder.iterdir():
            with contextlib.suppress(OSError):
                if now - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _sweep_remote(self) -> None:
        for name, stamp in self.stamps(".tmp", suffix="").items():
            if stamp.mtime is not None and time.time() - stamp.mtime / 1e9 > _STALE_SECONDS:
                self.delete(f".tmp/{name}")

    def _write_local(self, name: str, writer: Callable[[IO[bytes]], None]) -> Stamp:
        target = Path(self._own(name))
        temporary = Path(self._own(f".tmp/{uuid.uuid4().hex}"))
        temporary.parent.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                writer(stream)
                stream.flush()
                os.fsync(stream.fileno())
                facts = os.fstat(stream.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)
            return Stamp(facts.st_size, facts.st_mtime_ns)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _time_of(folder: Path) -> float:
    """The time by which a folder's files are dated. A clock of ours that is a day ahead would else sweep away
    what another driver is just writing."""
    probe = folder / uuid.uuid4().hex
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut. Some network file systems cannot, and say so."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
