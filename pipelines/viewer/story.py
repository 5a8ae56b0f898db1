"""One image's whole story: what was said of it, by whom, on what, and what became of each statement."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from data_engine.errors import QueryError
from data_engine.schema import REVIEW, REVIEWER
from pipelines.viewer.tables import Relations, Tables

MAX_SHOWN = 20_000
"""Characters of one text that are sent to the page; it says how long a longer one is."""

MAX_STATEMENTS = 20_000
"""Rows of one image that are sent."""

_STATEMENTS = """
    SELECT annotation_id AS id, kind, granularity, left(text, {shown}) AS text, length(text) AS length,
        parent_id AS parent, span, box, quad, mask IS NOT NULL AS mask, score, source, round
    FROM {annotations} WHERE image_id = ?
    ORDER BY source, round, kind, granularity, span[1], coalesce(score, 1) DESC, annotation_id
    LIMIT {most}
"""


def story(tables: Tables, shard: str, image_id: str) -> dict[str, Any]:
    """Everything that the data set holds about one image. Raises QueryError where it has no such image.

    `statements` have their `verdicts`, one per round, and the `mark` that a person gave them. `missing` says
    in a line each what could not be read, and which sources have not come to this shard yet.
    """
    if shard not in tables.shards:
        raise QueryError(f"there is no shard {shard[:40]!r}", f"the data set has {len(tables.shards)}")
    image = _one(tables, shard, image_id)
    statements = _rows(
        tables,
        shard,
        image_id,
        _STATEMENTS.format(annotations="{0.annotations}", shown=MAX_SHOWN, most=MAX_STATEMENTS),
    )
    marks = {
        s["parent"]: "good" if (s["score"] or 0) > 0.5 else "bad"
        for s in statements
        if s["source"] == REVIEWER and s["granularity"] == REVIEW
    }
    statements = [s for s in statements if s["source"] != REVIEWER]
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(
        tables,
        shard,
        image_id,
        "SELECT annotation_id, round, kept, dropped_by, value FROM {0.verdicts} WHERE image_id = ? ORDER BY round",
    ):
        verdicts.setdefault(row.pop("annotation_id"), []).append(row)
    for statement in statements:
        statement["verdicts"] = verdicts.get(statement["id"], [])
        statement["mark"] = marks.get(statement["id"])
    failures = _rows(
        tables,
        shard,
        image_id,
        "SELECT stage, reason, message FROM {0.failures} WHERE image_id = ? ORDER BY stage, reason",
    )
    missing = _missing(tables, shard) + tables.aside
    if len(statements) + len(marks) >= MAX_STATEMENTS:
        missing.append(f"more than {MAX_STATEMENTS:,} statements: only those are shown")
    return {
        "image": image,
        "statements": statements,
        "failures": failures,
        "missing": missing,
        "rounds": tables.rounds(),
    }


def _one(tables: Tables, shard: str, image_id: str) -> dict[str, Any]:
    columns = "image_id, keys, uri, width, height, format, length, metadata, shard, row"
    found = _rows(tables, shard, image_id, f"SELECT {columns} FROM {{0.images}} WHERE image_id = ?")  # noqa: S608
    if not found:
        raise QueryError(f"shard {shard} has no image {image_id[:40]!r}", "search for it by its id or key")
    image = found[0]
    with contextlib.suppress(ValueError):
        image["metadata"] = json.loads(image["metadata"]) if image["metadata"] else None
    return image


def _rows(tables: Tables, shard: str, image_id: str, sql: str) -> list[dict[str, Any]]:
    """The rows of a query on one image. `{0}` in it are the relations of its shard."""

    def build(r: Relations) -> tuple[str, list[Any]]:
        return sql.format(r), [image_id]

    rows: list[dict[str, Any]] = tables.select([shard], build).to_pylist()
    return rows


def _missing(tables: Tables, shard: str) -> list[str]:
    lacking = [f"{name} has not come to shard {shard} yet" for name, there in tables.folders("annotations").items()
               if shard not in there and name != REVIEWER]  # fmt: skip
    rounds = [f"round {name} has no verdicts on shard {shard}" for name, there in tables.folders("verdicts").items()
              if shard not in there]  # fmt: skip
    return lacking + rounds
