"""The statements of one image that are merged, and the rows that a merged one becomes.

A statement is a text that hangs on nothing, a region, a phrase with a box, or a mask. Scores, members, changes,
what a text is made of and measures of the picture are about statements as they stood; they are not carried over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.annotation import Annotation
from data_engine.errors import ImageError
from data_engine.overlap import Floats
from data_engine.schema import CHANGE, ELEMENTS, MEMBER
from specialists.merge_settings import MergeSettings

AGREED = "agreed"
MOVED = "moved"
RENAMED = "renamed"
PARTED = "parted"
JOINED = "joined"
ADDED = "added"
CHOSEN = "chosen"
MENDED = "mended"
KEPT = "kept"
HUMAN = "human"
DOUBTED = "doubted"
REASONS = (AGREED, MOVED, RENAMED, PARTED, JOINED, ADDED, CHOSEN, MENDED, KEPT, HUMAN, DOUBTED)
"""docs/merging.md says what each means."""

_NOT_MERGED = (MEMBER, CHANGE, ELEMENTS)

Box = tuple[float, float, float, float]


class Likelihood(NamedTuple):
    """What the student makes of a statement, and a scorer; NaN where nobody judged it."""

    named: float = math.nan
    located: float = math.nan
    told: float = math.nan
    scored: float = math.nan


_NOT_JUDGED = Likelihood()


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A statement as it stands in the table. `role` is `human`, `original` or `student`."""

    id: str
    kind: str
    granularity: str | None
    text: str | None
    parent: str | None
    span: tuple[int, int] | None
    box: Box | None
    quad: tuple[float, ...] | None
    mask: dict[str, Any] | None
    score: float | None
    source: str
    role: str
    likelihood: Likelihood

    @property
    def is_thing(self) -> bool:
        """A region that hangs on nothing."""
        return self.kind == "region" and self.mask is None and self.parent is None and self.box is not None

    @property
    def is_text(self) -> bool:
        return self.kind == "text"

    @property
    def is_link(self) -> bool:
        """A phrase's box."""
        return self.kind == "phrase" and self.mask is None and self.box is not None


@dataclass(slots=True, eq=False)
class Made:
    """A merged statement: why it is there, and the ids of the rows that it was made from."""

    row: Annotation
    reason: str
    members: list[str]


@dataclass(slots=True, eq=False)
class Page:
    """One image's statements, in an order that depends on nothing but themselves; `children` by parent id."""

    rows: list[Row]
    children: dict[str, list[Row]]
    made: list[Made] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Ids of the rows that are members of something."""
    left_out: int = 0
    """The student's boxes that were too many to be looked at."""

    def of(self, *roles: str) -> list[Row]:
        return [row for row in self.rows if row.role in roles]

    def put(self, row: Annotation, reason: str, members: Sequence[Row]) -> Annotation:
        ids = list(dict.fromkeys(member.id for member in members))
        self.made.append(Made(row, reason, ids))
        self.used.update(ids)
        return row

    def annotations(self) -> Iterator[Annotation | ImageError]:
        """The statements first: if an image has more rows than are taken, it is not they that are left out.

        Members and changes are regions without a box, whatever they are about: a reader of texts or phrases
        never meets them.
        """
        yield from (made.row for made in self.made)
        for made in self.made:
            yield from (Annotation("region", member, MEMBER, made.row) for member in made.members)
            yield Annotation("region", made.reason, CHANGE, made.row)
        for row in self.rows:
            if row.role != "student" and row.id not in self.used:
                yield Annotation("region", DOUBTED, CHANGE, row.id)
        if self.left_out:
            yield ImageError(
                "too_many", f"the {self.left_out:,} weakest of the student's boxes were left out of the merge"
            )


def pages(said: pa.Table, settings: MergeSettings) -> dict[str, Page]:
    """The pages of a batch by image id; an image of which nothing was said has none."""
    roles = {
        **dict.fromkeys(settings.student, "student"),
        **dict.fromkeys(settings.originals, "original"),
        **dict.fromkeys(settings.human, "human"),
    }
    judged = _likelihoods(said, settings)
    found: dict[str, list[Row]] = {}
    rows = said.filter(_are_statements(said, list(roles))).to_pylist()
    for row in sorted(rows, key=lambda row: row["annotation_id"]):
        found.setdefault(str(row["image_id"]), []).append(_row(row, roles[row["source"]], judged))
    return {image_id: _page(rows) for image_id, rows in found.items()}


def _row(row: dict[str, Any], role: str, judged: dict[str, Likelihood]) -> Row:
    return Row(
        row["annotation_id"],
        row["kind"],
        row["granularity"],
        row["text"],
        row["parent_id"],
        None if row["span"] is None else tuple(row["span"]),
        None if row["box"] is None else tuple(row["box"]),
        None if row["quad"] is None else tuple(row["quad"]),
        row["mask"],
        row["score"],
        row["source"],
        role,
        judged.get(row["annotation_id"], _NOT_JUDGED),
    )


def _page(rows: list[Row]) -> Page:
    # What people say something of is right in their eyes: it stays with what hangs on it.
    by_id = {row.id: row for row in rows}
    for row in rows:
        parent = by_id.get(row.parent or "")
        while row.role == "human" and parent is not None and by_id[parent.id].role != "human":
            by_id[parent.id] = replace(parent, role="human")
            parent = by_id.get(parent.parent or "")
    children: dict[str, list[Row]] = {}
    for row in by_id.values():
        if row.parent is not None:
            children.setdefault(row.parent, []).append(row)
    return Page(list(by_id.values()), children)


def _are_statements(said: pa.Table, sources: Sequence[str]) -> pa.ChunkedArray:
    apart = pc.fill_null(pc.is_in(said["granularity"], pa.array(_NOT_MERGED)), False)
    text = pc.and_(pc.is_valid(said["text"]), pc.is_null(said["parent_id"]))
    placed = pc.or_(pc.is_valid(said["box"]), pc.is_valid(said["mask"]))
    statement = pc.or_(
        pc.and_(pc.equal(said["kind"], "text"), text),
        pc.and_(pc.is_in(said["kind"], pa.array(["region", "phrase"])), placed),
    )
    return pc.and_(pc.is_in(said["source"], pa.array(sources)), pc.and_(statement, pc.invert(apart)))


def _likelihoods(said: pa.Table, settings: MergeSettings) -> dict[str, Likelihood]:
    """By the id of the statement judged. Of several judgements of one kind the lowest counts."""
    judges = [source for source in (settings.doubt, settings.scorer) if source is not None]
    if not judges:
        return {}
    scores = said.filter(
        pc.and_(
            pc.is_in(said["source"], pa.array(judges)),
            pc.and_(pc.is_valid(said["parent_id"]), pc.is_valid(said["score"])),
        )
    )
    columns = (scores[name].to_pylist() for name in ("parent_id", "source", "granularity", "score"))
    found: dict[str, dict[str, float]] = {}
    for parent, source, granularity, score in zip(*columns, strict=True):
        measure = "scored" if source == settings.scorer else granularity
        if measure in Likelihood._fields:
            known = found.setdefault(parent, {})
            known[measure] = min(score, known.get(measure, math.inf))
    return {parent: Likelihood(**values) for parent, values in found.items()}


def strongest(rows: Sequence[Row], most: int) -> tuple[list[Row], list[Row]]:
    """The `most` of the highest scores, none counting as the highest; and the others. Both in their order."""
    if len(rows) <= most:
        return list(rows), []
    scores = np.array([1.0 if row.score is None else row.score for row in rows])
    chosen = np.zeros(len(rows), bool)
    chosen[np.argsort(-scores, kind="stable")[:most]] = True
    pairs = list(zip(rows, chosen.tolist(), strict=True))
    return [row for row, is_in in pairs if is_in], [row for row, is_in in pairs if not is_in]


def boxes_of(rows: Sequence[Row]) -> Floats:
    """(n, 4)."""
    return np.array([row.box for row in rows], np.float64).reshape(-1, 4)
