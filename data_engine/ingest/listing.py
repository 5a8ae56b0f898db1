"""What files a source has: names, sizes and times, in one fixed order, without reading any of them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import pyarrow.fs

from data_engine.errors import SourceError
from data_engine.storage import is_local, local_path, resolve

_ARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""Schemes that pyarrow reads itself: it wants names percent-encoded, fsspec wants them as they are."""

_T = TypeVar("_T")

LOOKED_AT = 10_000
"""Files that are looked at for a sign of a format: a folder of millions is not listed for each format."""

UNIT_FILES = 1000
"""Files in one unit of a source that is a folder: what a killed ingest may have to look at again."""


@dataclass(frozen=True, slots=True)
class File:
    """`key` is the path below the source's folder; `mtime` is in nanoseconds, None where not known."""

    key: str
    size: int
    mtime: int | None

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Lower case, with its dot; empty when there is none."""
        dot = self.name.rfind(".")
        return self.name[dot:].lower() if dot > 0 else ""

    @property
    def facts(self) -> list[Any]:
        return [self.key, self.size, self.mtime]


def storable(name: str) -> bool:
    """Whether a name can be written as UTF-8; those of local files need not."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def normal(source: str) -> str:
    """A local path made absolute, a remote one without its last slash; anything else as it is."""
    if not is_local(source):
        return source.rstrip("/")
    path = local_path(source)
    return str(path) if path.exists() or "*" in source else source


def join(root: str, key: str) -> str:
    """The uri of a file below a folder."""
    if is_local(root):
        return f"{str(local_path(root)).rstrip('/')}/{key}"
    base, mark, query = root.partition("?")
    name = quote(key) if base.partition("://")[0] in _ARROW_SCHEMES else key
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def parent(uri: str) -> tuple[str, str]:
    """The folder that a file lies in, and its name there."""
    base, mark, query = uri.partition("?") if not is_local(uri) else (str(local_path(uri)), "", "")
    folder, _, name = base.rstrip("/").rpartition("/")
    return f"{folder or '/'}{mark}{query}", name


def kind(source: str) -> str:
    """`folder`, `file`, or empty when there is neither."""
    filesystem, path = resolve(source)
    with _readable(source):
        found = filesystem.get_file_info(path).type
    return {pyarrow.fs.FileType.Directory: "folder", pyarrow.fs.FileType.File: "file"}.get(found, "")


def one(source: str) -> File:
    """A single file as a source. Its key is its name."""
    filesystem, path = resolve(source)
    with _readable(source):
        info = filesystem.get_file_info(path)
    if info.type != pyarrow.fs.FileType.File:
        raise missing(source)
    return File(parent(source)[1], info.size, info.mtime_ns)


def missing(source: str) -> SourceError:
    return SourceError(f"there is no file or folder {source}", "check the path or URL")


def walk(folder: str, depth: int | None = None) -> Iterator[File]:
    """Every file below a folder, sorted by the parts of its path; `depth` 1 stays in the folder itself.

    Hidden files and folders (a leading dot) are passed over, so are devices, sockets, and links to a
    folder that is being walked. Memory holds the names of one folder at each depth.
    """
    filesystem, path = resolve(folder)
    if isinstance(filesystem, pyarrow.fs.LocalFileSystem):
        return _walk_local(path, "", depth, ())
    return _walk_remote(filesystem, path, "", depth)


def _walk_local(
    folder: str, prefix: str, depth: int | None, open_folders: tuple[tuple[int, int], ...]
) -> Iterator[File]:
    with _readable(folder), os.scandir(folder) as found:
        entries = sorted((e for e in found if not e.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        try:
            facts = entry.stat()
        except OSError:
            # A link to nothing, most likely: listed all the same, so that its absence is a failure to see.
            yield File(prefix + entry.name, 0, None)
            continue
        if stat.S_ISREG(facts.st_mode):
            yield File(prefix + entry.name, facts.st_size, facts.st_mtime_ns)
        elif stat.S_ISDIR(facts.st_mode) and depth != 1:
            this = (facts.st_dev, facts.st_ino)
            if this not in open_folders:
                below = None if depth is None else depth - 1
                yield from _walk_local(entry.path, f"{prefix}{entry.name}/", below, (*open_folders, this))


def _walk_remote(
    filesystem: pyarrow.fs.FileSystem, folder: str, prefix: str, depth: int | None
) -> Iterator[File]:
    with _readable(folder):
        found = filesystem.get_file_info(pyarrow.fs.FileSelector(folder))
    for info in sorted(found, key=lambda info: info.base_name):
        name = info.base_name
        if name.startswith("."):
            continue
        if info.type == pyarrow.fs.FileType.File:
            yield File(prefix + name, info.size, info.mtime_ns)
        elif info.type == pyarrow.fs.FileType.Directory and depth != 1:
            yield from _walk_remote(
                filesystem, info.path, f"{prefix}{name}/", None if depth is None else depth - 1
            )


def select(source: str, suffixes: Sequence[str]) -> tuple[str, Iterator[File]]:
    """The folder and the files of a source that is a folder, one file, or a pattern such as `dir/*.tar`.

    From a folder come the files with one of the suffixes; a pattern holds `*` or `?` in its last part
    only. Raises SourceError when there is nothing there.
    """
    folder, name = parent(source)
    if is_local(source) and any(c in name for c in "*?[") and kind(source) == "":
        files = [f for f in walk(folder, depth=1) if fnmatchcase(f.name, name)] if kind(folder) else []
        if not files:
            raise SourceError(
                f"no file is called {source}", "check the pattern; it may match file names only"
            )
        return folder, iter(files)
    found = kind(source)
    if found == "file":
        return folder, iter([one(source)])
    if found == "folder":
        return source, (f for f in walk(source) if f.name.lower().endswith(tuple(suffixes)))
    raise missing(source)


def chunks(values: Iterable[_T], count: int) -> Iterator[list[_T]]:
    iterator = iter(values)
    while chunk := list(islice(iterator, count)):
        yield chunk


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn what a disk or store says of a source into a SourceError."""
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"cannot look into {what}: {error}", "check the path and its permissions"
        ) from error
