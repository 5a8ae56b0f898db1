"""Pages of images that match a search, and how many there are in all.

Pages go by key, never by offset: a cursor is a shard and a place in it, and the next page starts behind
it. Shards are asked in order, a few at a time and ever more while nothing is found, until the page is full
or its time is over; then the answer says how far it came, and the same request with its cursor goes on. So
a page costs the same wherever it lies, and memory does not grow with the data set.
"""

# The SQL is put together from names of this package's own; what a person gives are parameters.
# ruff: noqa: S608

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_engine.errors import QueryError
from pipelines.viewer.search import Search
from pipelines.viewer.tables import Relations, Tables

PAGE_SECONDS = 1.2
"""After which a page is answered with what was found so far."""

EXAMPLES = 8
"""Matching statements that are shown for each image of a page."""

_MOST_SHARDS = 256
_BATCH_SECONDS = 0.25
_MOST_ON_A_PAGE = 200


@dataclass(frozen=True)
class Place:
    """Behind which image a page starts: `row` of shard number `shard`; -1 is before the shard's first."""

    shard: int = 0
    row: int = -1

    @classmethod
    def read(cls, written: str) -> Place:
        found = re.fullmatch(r"(\d{1,9})\.(-1|\d{1,9})", written)
        if found is None:
            raise QueryError(f"a page {written[:40]!r}", "take the cursor of an answer as it is")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.shard}.{self.row}"


def page(
    tables: Tables,
    search: Search,
    after: Place | None = None,
    before: Place | None = None,
    size: int = 48,
    seconds: float = PAGE_SECONDS,
) -> dict[str, Any]:
    """The next `size` images behind `after` that match, or the last ones that lie before `before`.

    The answer: `images`, each with its place and its first matching statements; `next`, where to go on (null
    at the end); `full`; and `searched` of `shards`. Images come in the order of the data set.
    """
    size = max(1, min(size, _MOST_ON_A_PAGE))
    started = time.monotonic()
    start = before or after or Place()
    found: list[dict[str, Any]] = []
    stopped: Place | None = start if start.shard < len(tables.shards) else None
    searched = 0
    for numbers in _batches(len(tables.shards), start.shard, before is not None, seconds):
        shards = [tables.shards[n] for n in numbers]
        wanted = size - len(found)
        # One more than wanted tells whether there is more.
        more = _images(tables, search, shards, start, before is not None, wanted + 1)
        _with_examples(tables, search, more[:wanted])
        found += more[:wanted]
        searched += len(numbers)
        if len(more) > wanted:
            last = found[-1]
            stopped = Place(int(last["shard"]), last["row"])
            break
        end = numbers[-1] - 1 if before is not None else numbers[-1] + 1
        if not 0 <= end < len(tables.shards):
            stopped = None
            break
        stopped = Place(end, 1 << 29) if before is not None else Place(end)
    if before is not None:
        found.reverse()
    return {
        "images": found,
        "next": None if stopped is None else str(stopped),
        "full": len(found) >= size,
        "searched": searched,
        "shards": len(tables.shards),
        "seconds": round(time.monotonic() - started, 3),
    }


def count(tables: Tables, search: Search, start: int = 0, seconds: float = PAGE_SECONDS) -> dict[str, Any]:
    """How many statements and images match in the shards from number `start` on, as far as the time allows.

    `next` is the shard to go on with, null at the end. The page adds up the answers.
    """
    statements = images = 0
    goes_on: int | None = start if start < len(tables.shards) else None
    for numbers in _batches(len(tables.shards), start, False, seconds):
        shards = [tables.shards[n] for n in numbers]

        def build(r: Relations) -> tuple[str, list[Any]]:
            sql, values = search.statements(r)
            if not search.of_statements and not search.image:
                # Answered from the files' footers alone.
                return (
                    f"SELECT count(*) AS n, (SELECT count(*) FROM {r.images}) AS m FROM {r.annotations}",
                    [],
                )
            which, named = search.of_images()
            return (
                f"SELECT count(s.image_id) AS n, count(DISTINCT image_id) AS m FROM {r.images} i "
                f"{'' if search.of_statements else 'LEFT '}JOIN ({sql}) s USING (image_id) WHERE {which}"
            ), values + named

        row = tables.select(
            shards,
            build,
            sources=search.sources,
            round_=search.verdict_round(tables),
            views=search.asks_views,
        ).to_pylist()[0]
        statements, images = statements + row["n"], images + row["m"]
        goes_on = numbers[-1] + 1 if numbers[-1] + 1 < len(tables.shards) else None
    return {"statements": statements, "images": images, "next": goes_on, "shards": len(tables.shards)}


def _batches(shards: int, start: int, back: bool, seconds: float) -> Iterator[list[int]]:
    """Numbers of shards, until the time is over: one at first, then as many as a quarter of a second allows."""
    size, ends = 1.0, time.monotonic() + seconds
    while 0 <= start < shards:
        last = max(start - int(size) + 1, 0) if back else min(start + int(size), shards) - 1
        begun = time.monotonic()
        yield list(range(start, last - 1, -1) if back else range(start, last + 1))
        now = time.monotonic()
        if now >= ends:
            return
        allowed = min(_BATCH_SECONDS, ends - now) / max(now - begun, 1e-3)
        size = min(max(size * min(allowed, 4.0), 1.0), _MOST_SHARDS)
        start = last + (-1 if back else 1)


def _images(
    tables: Tables, search: Search, shards: Sequence[str], start: Place, back: bool, size: int
) -> list[dict[str, Any]]:
    at = tables.shards[start.shard] if start.shard < len(tables.shards) else ""

    def build(r: Relations) -> tuple[str, list[Any]]:
        which, named = search.of_images()
        beyond = "<" if back else ">"
        sql = (
            f"SELECT image_id, keys, width, height, shard, row FROM {r.images} "
            f"WHERE {which} AND (shard <> ? OR row {beyond} ?)"
        )
        values = [*named, at, start.row]
        if search.of_statements:
            matching, given = search.statements(r)
            sql = (
                f"WITH hits AS (SELECT image_id, count(*) AS matches FROM ({matching}) GROUP BY image_id) "
                f"SELECT i.*, matches FROM ({sql}) i JOIN hits USING (image_id)"
            )
            values = given + values
        order = " DESC" if back else ""
        return f"{sql} ORDER BY shard::INT{order}, row{order} LIMIT {int(size)}", values

    table = tables.select(
        shards,
        build,
        sources=search.sources,
        round_=search.verdict_round(tables),
        views=search.asks_views,
    )
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _with_examples(tables: Tables, search: Search, found: list[dict[str, Any]]) -> None:
    """Give each image of a page its first matching statements, and how many there are."""
    for image in found:
        image["key"], image["statements"] = (image.pop("keys") or [""])[0], []
    if not found:
        return
    shards = sorted({image["shard"] for image in found})
    ids = [image["image_id"] for image in found]

    def build(r: Relations) -> tuple[str, list[Any]]:
        matching, values = search.statements(r, kept_columns=True)
        return (
            "SELECT annotation_id, image_id, kind, granularity, left(text, 300) AS text, box, quad, score, "
            "source, kept, dropped_by, count(*) OVER (PARTITION BY image_id) AS matches "
            f"FROM ({matching}) WHERE image_id IN ({', '.join('?' * len(ids))}) "
            "QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY text IS NULL, "
            "coalesce(granularity, '') IN ('change', 'elements', 'member'), kind <> 'text', "
            f"coalesce(score, 1) DESC, source, annotation_id) <= {EXAMPLES}"
        ), [*values, *ids]

    rows = tables.select(
        shards,
        build,
        sources=search.sources,
        round_=search.verdict_round(tables),
        views=search.asks_views,
    ).to_pylist()
    of_image = {image["image_id"]: image for image in found}
    for row in rows:
        image = of_image[row.pop("image_id")]
        image["matches"] = row.pop("matches")
        image["statements"].append(row)
    for image in found:
        image.setdefault("matches", 0)
