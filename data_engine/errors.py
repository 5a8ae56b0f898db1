"""Every error that this project raises on purpose, and the exit code `fde` ends with.

    FdeError                     1  never raised itself
    ├── RecipeError              2  a recipe, or a setting in it, cannot be used
    ├── SourceError              3  what is to be ingested cannot be read as what it claims to be
    ├── DatasetError             3  the folder is no data set, or not one that this version reads
    │   ├── NewerFormatError     3  it was written by a newer version
    │   └── DamagedError         3  a file of it cannot be read
    ├── QueryError               3  the SQL is wrong, or is not a query
    ├── StorageError             4  a disk or an object store refused: full, read-only, unreachable
    ├── ClusterError             4  the Ray cluster cannot be reached
    ├── SpecialistError          5  a specialist cannot be used at all
    │   ├── ModelLoadError       5  its weights are missing or unusable
    │   └── MissingPackageError  5  a package that it needs is not installed
    ├── IncompleteError          6  the run ended, but some units of work failed; running again retries them
    ├── ChecksError              7  checks of a data set found something wrong with it
    └── ImageError               -  one image cannot be used; becomes a row in `failures`, never ends a run

Exit code 0 means done, 1 a defect in this project (please report it), 130 interrupted by Ctrl-C.

A message is one line that says what is wrong; the hint says what to do about it. Code that catches
an `FdeError` may show both to a person as they are.
"""

from __future__ import annotations

from typing import Any


class FdeError(Exception):
    """Base of the tree; `exit_code` is what the command line ends with."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (a Ray actor to the driver) with their hint.
        return (type(self), (self.message, self.hint))


class RecipeError(FdeError):
    exit_code = 2


class SourceError(FdeError):
    exit_code = 3


class DatasetError(FdeError):
    exit_code = 3


class NewerFormatError(DatasetError):
    pass


class DamagedError(DatasetError):
    pass


class QueryError(FdeError):
    exit_code = 3


class StorageError(FdeError):
    exit_code = 4


class ClusterError(FdeError):
    exit_code = 4


class SpecialistError(FdeError):
    exit_code = 5


class ModelLoadError(SpecialistError):
    pass


class MissingPackageError(SpecialistError):
    """Names the extra that brings the package."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingPackageError:
        return cls(
            f"the package {package!r} is not installed",
            f"install it with: pip install 'florence-data-engine[{extra}]'",
        )


class IncompleteError(FdeError):
    exit_code = 6


class ChecksError(FdeError):
    exit_code = 7


class ImageError(FdeError):
    """One image that cannot be used. `reason` is the short code that `failures.reason` holds."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.reason, self.message))
