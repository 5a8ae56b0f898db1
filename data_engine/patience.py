"""Trying again: what a store refuses for a moment is asked for again, later and later, for a bounded time.

A store far away answers 500, 503 SlowDown or 429, cuts connections and times out as a matter of course; a run of
hours must not end by that. What asking again cannot mend (no such file, no permission, no such bucket) is raised
at once.

A store that does not come back, or that refuses, raises StorageError, which ends a run: an image or an archive must
not be written down as unreadable because a network was lost.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from data_engine.errors import StorageError

log = logging.getLogger("data_engine")

PATIENCE = "FDE_STORAGE_PATIENCE"
"""The environment variable that says for how many seconds one operation is tried again; 120 without it."""

_SECONDS = 120.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 20.0
_SILENT_SECONDS = 5.0
"""A store that stumbles is no news; one that stays away this long is worth a line."""

_FINAL_NUMBERS = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS,
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.EINVAL,
}  # fmt: skip

_FINAL_KINDS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""What fsspec's filesystems raise, without a number."""

_NOT_ALLOWED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE|AUTHENTICATION|UNRECOGNIZED_CLIENT|CLIENT_TOKEN_ID"
    r"|EXPIRED_TOKEN|OPT_IN_REQUIRED|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status 40[13]"
)
"""How the stores that Arrow speaks to say that a person has no right to something."""

_NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|NoSuchBucket")

_REFUSED = re.compile(
    r"INVALID_PARAMETER|MISSING_PARAMETER|VALIDATION|INVALID_ARGUMENT|HTTP status (?!408|425|429)4\d\d"
)

_CLIENTS = {"aiohttp", "azure", "botocore", "gcsfs", "google", "http", "paramiko", "requests", "urllib3"}
"""Packages below fsspec whose errors need not be an OSError."""

T = TypeVar("T")


def patience() -> float:
    """Seconds for which one operation may be tried again. Raises StorageError for what is no number."""
    text = os.environ.get(PATIENCE, "")
    try:
        seconds = float(text) if text else _SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise StorageError(f"{PATIENCE}={text!r} is no number of seconds", "give one, such as 120")
    return seconds


def refusal(what: str, error: Exception) -> StorageError | None:
    """The error that ends a run, where a store said that it will not do this however often it is asked."""
    if isinstance(error, OSError):
        text = str(error)
        if _NO_BUCKET.search(text):
            return StorageError(f"there is no bucket for {what}", "make the bucket, or correct the URL")
        if _NOT_ALLOWED.search(text):
            return StorageError(
                f"not allowed to access {what}: {_line(error)}",
                "check the credentials (AWS_ACCESS_KEY_ID and the like; they may have run out) and the bucket's "
                "policy: without the right to list, a file that is not there looks the same",
            )
        return (
            StorageError(f"cannot access {what}: {_line(error)}", "check the URL")
            if _REFUSED.search(text)
            else None
        )
    status = getattr(error, "status", getattr(error, "code", None))
    if (
        _of_a_client(error)
        and isinstance(status, int)
        and 400 <= status < 500
        and status not in (408, 425, 429)
    ):
        return StorageError(f"cannot access {what}: {_line(error)}", "check the URL and the credentials")
    return None


def patiently(what: str, do: Callable[[], T]) -> T:
    """What `do` gives, asked for until it is had. `do` must not mind being called again.

    Raises an OSError with its number (FileNotFoundError, IsADirectoryError, ...) as it is; StorageError where the
    store refuses, or did not come back in `patience` seconds: that one says how often it was tried.
    """
    started = time.monotonic()
    tried, told = 0, False
    while True:
        tried += 1
        try:
            return do()
        except Exception as error:
            if refused := refusal(what, error):
                raise refused from error
            if not _passing(error):
                raise
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tried - 1)) * random.uniform(0.5, 1)
            waited = time.monotonic() - started
            if waited + pause > patience():
                raise StorageError(
                    f"cannot access {what}: {_line(error)} (tried {tried} times in {waited:.0f} seconds)",
                    "check the connection, then run the same command again: finished shards are kept; "
                    f"{PATIENCE} sets for how many seconds a store is tried",
                ) from error
            log.debug("%s: %s; trying again in %.1f seconds", what, _line(error), pause)
            if waited > _SILENT_SECONDS and not told:
                told = True
                log.warning(
                    "%s: %s; tried %d times, and for %.0f seconds more",
                    what, _line(error), tried, patience() - waited,
                )  # fmt: skip
            time.sleep(pause)


def _passing(error: Exception) -> bool:
    """Whether an error may be gone in a moment: everything that a store says but what is known to stay."""
    if isinstance(error, OSError):
        return error.errno not in _FINAL_NUMBERS and not isinstance(error, _FINAL_KINDS)
    return isinstance(error, TimeoutError | EOFError) or _of_a_client(error)


def _of_a_client(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
