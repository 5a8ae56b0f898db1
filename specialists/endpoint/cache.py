"""Answers on disk, so that a run that is started again asks nothing that was answered.

One JSON file per answer, named by the digest of its request: a folder that any number of processes on
any number of machines may use at once, that survives any crash, and that DuckDB reads as a table. An
entry holds the answer and its token counts; the request, the images and the key are not in it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from data_engine.errors import RecipeError, StorageError
from specialists.endpoint.answer import Answer
from specialists.endpoint.usage import Usage

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def cache_folder(cache: str | None) -> Path | None:
    """Where a recipe's `cache` lies: a NAME in the user's cache folder, or a `file:///` URL. None is None.

    A plain path is refused. A recipe's paths count by the content of what lies there, so each answer
    that came in would change the recipe's fingerprint, and every shard would be made again.
    """
    if cache is None:
        return None
    if isinstance(cache, str):
        if _NAME.fullmatch(cache):
            base = os.environ.get("XDG_CACHE_HOME", "")
            root = Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()
            return root / "florence-data-engine" / "chat" / cache
        url = urlsplit(cache)
        if url.scheme == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
            return Path(unquote(url.path))
    raise RecipeError(
        f"cache: {cache!r} is neither a name nor a file URL",
        "give a name (letters, digits, '-', '_') for a folder in your cache folder, or file:///FOLDER",
    )


class AnswerCache:
    """Answers by the digest of their request, under `folder`. Raises StorageError where it cannot write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(folder, error) from error

    def get(self, key: str) -> Answer | None:
        """None also for a file that is damaged: it is asked again and written anew."""
        return _read(self._path(key))

    def put(self, key: str, answer: Answer) -> None:
        """Appears whole or not at all. Of two processes with the same request the later one wins."""
        path = self._path(key)
        temporary: Path | None = None
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".part", delete=False
            ) as file:
                temporary = Path(file.name)
                json.dump({"format": _FORMAT, **asdict(answer)}, file, ensure_ascii=False)
            temporary.replace(path)
        except OSError as error:
            if temporary is not None:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise _refused(self.folder, error) from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def spent(cache: str) -> Usage:
    """What all answers of a cache took, whichever run asked for them. `cache` as in the recipe."""
    folder = cache_folder(cache)
    total = Usage()
    for path in folder.glob("??/*.json") if folder is not None else ():
        answer = _read(path)
        if answer is not None:
            total.add(answer)
    return total


def _read(path: Path) -> Answer | None:
    try:
        entry: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.pop("format", None) != _FORMAT:
        return None
    try:
        answer = Answer(**entry)
    except TypeError:
        return None
    texts = (answer.text, answer.finish_reason, answer.model)
    counts = (answer.input_tokens, answer.output_tokens)
    sound = all(isinstance(text, str) for text in texts) and all(
        count is None or isinstance(count, int) for count in counts
    )
    return answer if sound else None


def _refused(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"answers cannot be kept in {folder}: {error.strerror or error}",
        "free or mend that disk, or choose another `cache`; answers that were kept are not asked again",
    )
