"""Queries that stand one to a file, with a few lines of comment at the top that say what they are.

    -- title: Size of boxes
    -- key: kind, bin
    -- What follows describes it, on as many lines as it takes.
    SELECT ...

`title` is one line. `key` names the columns by which two results of a report are held against each other.
`by: shard` on a check says that its rows can be found shard by shard: every statement's parent, members and
verdicts lie in the shards that bear the same name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from data_engine.errors import QueryError

_FIELD = re.compile(r"(title|key|by):\s*(.*)")


@dataclass(frozen=True)
class Query:
    """One .sql file. `title` is the name where the file has none; `key` and `by_shard` as in the module."""

    name: str
    title: str
    description: str
    sql: str
    key: tuple[str, ...] = ()
    by_shard: bool = False


def built_in(folder: str) -> dict[str, Query]:
    """The queries of data_engine/qa/FOLDER by name, in the order of their names."""
    return _queries(files("data_engine.qa") / folder)


def of_folder(folder: Path) -> dict[str, dict[str, Query]]:
    """A person's own queries: `checks` and `reports`, laid out as the built-in ones. Checks may also lie in the
    folder itself. Raises QueryError when there is none."""
    if not folder.is_dir():
        raise QueryError(f"{folder} is no folder", "name a folder with .sql files")
    found = {
        "checks": _queries(folder) | _queries(folder / "checks"),
        "reports": _queries(folder / "reports"),
    }
    if not any(found.values()):
        raise QueryError(f"{folder} has no .sql file", "a check is a SELECT of the rows that are wrong")
    return found


def parse(name: str, text: str) -> Query:
    """A file's text as a query; its comment ends at the first line that is none."""
    fields: dict[str, str] = {}
    description: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        comment = line.removeprefix("--").strip()
        field = _FIELD.fullmatch(comment)
        if field:
            fields[field[1]] = field[2].strip()
        elif comment:
            description.append(comment)
    return Query(
        name=name,
        title=fields.get("title", name),
        description=" ".join(description),
        sql=text,
        key=tuple(part.strip() for part in fields.get("key", "").split(",") if part.strip()),
        by_shard=fields.get("by") == "shard",
    )


def _queries(folder: Traversable | Path) -> dict[str, Query]:
    if not folder.is_dir():
        return {}
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_file() and file.name.endswith(".sql"):
            name = file.name.removesuffix(".sql")
            try:
                found[name] = parse(name, file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise QueryError(f"{file} cannot be read: {error}", "save it as UTF-8 text") from error
    return found
