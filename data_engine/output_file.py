"""Files that a person asks for by name: whole or not at all, and until one is whole the old one stands."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data_engine.errors import StorageError
from data_engine.storage import storage_errors

_WHEN_FULL = "free some space, or name a file on another disk, then run the same command again"


def make_place(path: Path) -> None:
    """Make the folder of a file that is to be written: best before the work that its content takes.

    Raises StorageError where that cannot be, and where `path` is a folder itself.
    """
    with storage_errors(str(path), _WHEN_FULL):
        if path.is_dir():
            raise StorageError(f"{path} is a folder", "name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A stream for the file's bytes, which takes the file's place when the block ends, and only if it does not raise.

    What is no file, such as `/dev/stdout`, is written to as it is. Raises StorageError as `make_place` does, and
    for what the disk refuses.
    """
    make_place(path)
    with storage_errors(str(path), _WHEN_FULL):
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        target = path.resolve()  # what a link names is replaced, not the link
        # Not the name with something added: it may be as long as names can be.
        beside = target.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with beside.open("wb") as stream:
                yield stream
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
