"""Models that lie on a store: an argument that is a URL of one is fetched to this machine, once, and then a path.

Weights are loaded from files. So what `s3://bucket/models/x` names (a folder or a file) is copied into a folder of
this machine that all its processes share, under a name made of the URL and of what the store says of each file: its
size, and its ETag or time. What changes on the store is fetched anew beside the old. A copy appears whole or not at
all; of several processes that want the same one, one fetches and the others wait.

Arguments that begin with http:// or https:// are addresses of endpoints and left as they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs

from data_engine.blanked import blanked
from data_engine.errors import ModelLoadError
from data_engine.patience import patiently
from data_engine.remote import native
from data_engine.storage import AHEAD_BYTES, is_local, resolve, storage_errors

CACHE = "FDE_CACHE"
"""The environment variable that names the folder of copies; ~/.cache/florence-data-engine without it."""

_ADDRESSES = ("http://", "https://")


def fetched(value: Any) -> Any:
    """An argument of a recipe, or a whole mapping of them, with a path in place of every URL of a store.

    Raises ModelLoadError where there is nothing at a URL, StorageError where its store cannot be reached.
    """
    if isinstance(value, Mapping):
        return {key: fetched(item) for key, item in value.items()}
    if isinstance(value, list):
        return [fetched(item) for item in value]
    return str(fetch(value)) if is_on_a_store(value) else value


def is_on_a_store(value: Any) -> bool:
    if not isinstance(value, str) or any(c.isspace() for c in value):
        return False
    scheme, mark, rest = value.partition("://")
    known = scheme.replace("+", "").replace("-", "").isalnum()
    return bool(mark and known and rest) and not is_local(value) and not value.startswith(_ADDRESSES)


def fetch(url: str) -> Path:
    """The copy of a folder or a file on this machine; made where there is none of what lies there now."""
    filesystem, path = resolve(url)
    path = path.rstrip("/")
    files = _listing(filesystem, path, url)
    facts = [(name, info.size, _version(filesystem, info)) for name, info in files.items()]
    key = hashlib.sha256(json.dumps([blanked(url), facts]).encode()).hexdigest()[:32]
    folder = _cache() / key
    # A file keeps its name, and a folder too: some libraries look at it.
    target = folder / PurePosixPath(path).name
    with storage_errors(str(folder)):
        if target.exists():
            return target
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not target.exists():
                _copy(filesystem, files, folder, target)
    return target


def _cache() -> Path:
    chosen = os.environ.get(CACHE)
    return (Path(chosen) if chosen else Path.home() / ".cache" / "florence-data-engine") / "models"


def _listing(filesystem: pa.fs.FileSystem, path: str, url: str) -> dict[str, pa.fs.FileInfo]:
    """Files by their place below `path`; an empty name for `path` itself where it is a file."""
    with storage_errors(blanked(url)):
        info = filesystem.get_file_info(path)
        if info.type == pa.fs.FileType.File:
            return {"": info}
        found = filesystem.get_file_info(pa.fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = {f.path[len(path) :].strip("/"): f for f in found if f.type == pa.fs.FileType.File}
    if not files:
        raise ModelLoadError(
            f"there is nothing at {blanked(url)}",
            "correct the recipe's argument, or put the model there",
        )
    outside = [name for name in files if ".." in PurePosixPath(name).parts or "\\" in name]
    if outside:
        raise ModelLoadError(f"{blanked(url)} holds {outside[0]!r}, which lies outside of it", "remove it")
    return dict(sorted(files.items()))


def _version(filesystem: pa.fs.FileSystem, info: pa.fs.FileInfo) -> str:
    """The ETag of a file where the store has one, else its time."""

    def asked() -> str | None:
        with native(filesystem).open_input_stream(info.path) as stream:
            said = stream.metadata()
        tag = {str(key): value for key, value in (said or {}).items()}.get("ETag")
        return None if tag is None else bytes(tag).decode("ascii", "replace")

    return patiently(info.path, asked) or str(info.mtime_ns)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time; a lock goes with the process that holds it."""
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _copy(
    filesystem: pa.fs.FileSystem, files: Mapping[str, pa.fs.FileInfo], folder: Path, target: Path
) -> None:
    half = folder.parent / f".{uuid.uuid4().hex}"
    try:
        for name, info in files.items():
            place = half / target.name / name if name else half / target.name
            place.parent.mkdir(parents=True, exist_ok=True)
            with filesystem.open_input_file(info.path) as source, place.open("wb") as copy:
                shutil.copyfileobj(source, copy, AHEAD_BYTES)
            if place.stat().st_size != info.size:
                raise OSError(f"{place.stat().st_size:,} bytes of {info.path} came, {info.size:,} are listed")
        shutil.rmtree(folder, ignore_errors=True)
        half.replace(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)
