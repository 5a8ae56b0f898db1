"""Places below a data set's folder that are written to or emptied, which no link in it may lead out of.

A data set that was fetched from somewhere may hold links: `annotations/caption -> /home/me/work` would have a run
write there, and `.tmp -> /home/me` have it swept. Reading through a link is left alone, since shards that lie on
several disks are laid out so; the data set's own folder may be one too.
"""

from __future__ import annotations

from pathlib import Path

from data_engine.errors import StorageError


def confined(root: Path, path: Path) -> Path:
    """`path` below `root`. Raises StorageError where a folder between the two is a link that leads out of it."""
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise StorageError(
            f"{path.parent} is a link that leads out of the data set, so nothing is written or removed there",
            "put a folder (or a mount) in its place; if you did not make that link, trust nothing in this data set",
        )
    return path
