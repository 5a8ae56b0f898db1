"""What a person searches for, as SQL over the statements and the images of some shards."""

# The SQL is put together from names of this package's own; what a person gives are parameters, and the one
# condition that is SQL passes through `_expression`.
# ruff: noqa: S608

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import duckdb

from data_engine.errors import QueryError
from pipelines.viewer.tables import Relations, Tables

_VERDICT = re.compile(r"\b(kept|dropped_by|value)\b", re.IGNORECASE)
_OF_IMAGE = re.compile(r"\b(width|height|keys|format|uri|metadata)\b", re.IGNORECASE)
_SUBQUERY = re.compile(r"\b(select|from|table|values)\b", re.IGNORECASE)
_WORDS = re.compile(r'"([^"]+)"|(\S+)')


@dataclass(frozen=True)
class Search:
    """What a person asks for; everything given must hold. The same names stand in the page's address.

    - `text`: words, or their beginnings, that a text holds, whatever their case and order; `"a red cup"`: as
      it stands.
    - `label`: the whole text of a region or an image-level label, whatever its case.
    - `minimum`, `maximum`: of the score; statements without one are left out.
    - `kept`: `yes` or `no`, and `dropped_by`, by the verdicts of `round` (the last by default).
    - `mark`: `good`, `bad` or `any`: what people marked so.
    - `image`: an image's id, or part of one of its keys.
    - `condition`: SQL over a statement's columns (docs/viewer.md).
    """

    text: str = ""
    label: str = ""
    source: str = ""
    kind: str = ""
    granularity: str = ""
    minimum: str = ""
    maximum: str = ""
    kept: str = ""
    dropped_by: str = ""
    round: str = ""
    mark: str = ""
    image: str = ""
    condition: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Search:
        """Raises QueryError for a number that is none, or a condition that is no single expression."""
        search = cls(**{f.name: given.get(f.name, "").strip() for f in fields(cls)})
        for name in ("minimum", "maximum"):
            try:
                float(getattr(search, name) or 0)
            except ValueError as error:
                raise QueryError(
                    f"a score of {getattr(search, name)!r}", "scores are numbers in 0..1"
                ) from error
        if search.round and not search.round.isdecimal():
            raise QueryError(f"a round {search.round!r}", "rounds are numbers from 0 on")
        if search.condition:
            _expression(search.condition)
        return search

    @property
    def of_statements(self) -> bool:
        """Whether it asks for anything but images."""
        return any(getattr(self, f.name) for f in fields(self) if f.name not in ("image", "round"))

    @property
    def asks_views(self) -> bool:
        """Whether its condition asks the views of the whole data set (data_engine.query)."""
        return bool(_SUBQUERY.search(self.condition))

    @property
    def sources(self) -> list[str] | None:
        """The sources whose files need to be read; None: all."""
        return [self.source] if self.source else None

    def verdict_round(self, tables: Tables) -> int:
        return int(self.round) if self.round else max(tables.rounds(), default=0)

    def statements(self, r: Relations, kept_columns: bool = False) -> tuple[str, list[Any]]:
        """The matching statements of some shards: a SELECT's text and its parameters."""
        where, values = self._conditions(r)
        columns, joined = "a.*", f"{r.annotations} a"
        # A join that nothing needs would still be made.
        if kept_columns or self.kept or self.dropped_by or _VERDICT.search(self.condition):
            columns += ", v.kept, v.dropped_by, v.value"
            joined += f" LEFT JOIN {r.verdicts} v ON v.annotation_id = a.annotation_id"
        if _OF_IMAGE.search(self.condition):
            columns += ", i.width, i.height, i.keys, i.format, i.uri, i.metadata"
            joined += f" JOIN {r.images} i ON i.image_id = a.image_id"
        condition = " AND ".join(where) or "true"
        return f"SELECT * FROM (SELECT {columns} FROM {joined}) WHERE {condition}", values

    def _conditions(self, r: Relations) -> tuple[list[str], list[Any]]:
        where: list[str] = []
        values: list[Any] = []

        def add(condition: str, *given: Any) -> None:
            where.append(condition)
            values.extend(given)

        for phrase, word in _WORDS.findall(self.text):
            add("contains(lower(text), lower(?))", phrase or word)
            if word[:1].isascii() and word[:1].isalnum():
                # From the beginning of a word: "red" is not in "jittered".
                add("regexp_matches(text, '(?i)\\b' || regexp_escape(?))", word)
        if self.label:
            add("lower(text) = lower(?) AND (kind = 'region' OR granularity = 'class')", self.label)
        for column in ("source", "kind", "granularity", "dropped_by"):
            if getattr(self, column):
                add(f"{column} = ?", getattr(self, column))
        if self.minimum:
            add("score >= ?::FLOAT", self.minimum)
        if self.maximum:
            add("score <= ?::FLOAT", self.maximum)
        if self.kept:
            add("kept = ?", self.kept == "yes")
        if self.mark:
            wanted = {"good": "score > 0.5", "bad": "score <= 0.5"}.get(self.mark, "true")
            add(f"annotation_id IN (SELECT parent_id FROM {r.marks} WHERE {wanted})")
        if self.condition:
            add(f"({_expression(self.condition)})")
        return where, values

    def of_images(self) -> tuple[str, list[Any]]:
        if not self.image:
            return "true", []
        named = "image_id = lower(?) OR contains(lower(array_to_string(keys, chr(10))), lower(?))"
        return f"({named})", [self.image, self.image]


def _expression(condition: str) -> str:
    """A condition as one expression, written anew by DuckDB's own parser: no comment, no semicolon, no
    parenthesis too many can change what stands around it. Raises QueryError."""
    try:
        return str(duckdb.SQLExpression(condition))
    except duckdb.Error as error:
        first = str(error).split("\n\n")[0].split("\nLINE")[0].strip()
        raise QueryError(
            " ".join(first.split())[:300], "write one condition, such as: kind = 'region' AND score < 0.5"
        ) from error
