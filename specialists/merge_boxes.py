"""Regions merged: which of the originals' and the student's are one thing, and what comes of each.

Regions of one granularity are held against each other: categories, lines of text, proposals, descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_engine.annotation import Annotation
from data_engine.overlap import iou
from specialists.merge_carried import carry
from specialists.merge_matching import Bools, covers, matched, mean_box
from specialists.merge_rows import (
    ADDED,
    AGREED,
    HUMAN,
    JOINED,
    KEPT,
    MOVED,
    PARTED,
    RENAMED,
    Page,
    Row,
    boxes_of,
    strongest,
)
from specialists.merge_settings import (
    ADD_ABOVE,
    DOUBT_LOCATED,
    DOUBT_NAMED,
    MOVE,
    RENAME,
    WEIGHT,
    MergeSettings,
)

Pair = tuple[Row, list[Row]]


@dataclass(slots=True, eq=False)
class Matches:
    """One image's regions of one granularity, each in one place.

    `human`: people's regions, each with what repeats it. `joined`: a student's region and the originals that
    are parts of it. `parted`: an original and the student's that are parts of it. `agreed` and `renamed`: a
    student's region and the originals at its place, of its name and of others. `originals` and `students`
    are left over, and so are the originals too many to be matched; `left_out` are the student's.
    """

    human: list[Pair] = field(default_factory=list)
    joined: list[Pair] = field(default_factory=list)
    parted: list[Pair] = field(default_factory=list)
    agreed: list[Pair] = field(default_factory=list)
    renamed: list[Pair] = field(default_factory=list)
    originals: list[Row] = field(default_factory=list)
    students: list[Row] = field(default_factory=list)
    left_out: list[Row] = field(default_factory=list)


def merge_regions(page: Page, settings: MergeSettings) -> None:
    """Put the merged regions on the page, and all that hangs on them."""
    for things in things_by_granularity(page.rows):
        found = match_things(things, settings)
        page.left_out += len(found.left_out)
        for human, others in found.human:
            row = Annotation(
                "region", human.text, human.granularity, box=human.box, quad=human.quad, score=human.score
            )
            _put(page, row, HUMAN, [human, *others], settings)
        for student, originals in found.joined:
            _put(page, _as_student(student, originals, settings), JOINED, [student, *originals], settings)
        for original, students in found.parted:
            for student in students:
                row = _as_student(student, [original], settings)
                _put(page, row, PARTED, [student, original], settings, carried=[student])
        for student, originals in found.agreed:
            row, reason = _agreed(student, originals, settings)
            _put(page, row, reason, [*originals, student], settings)
        for student, originals in found.renamed:
            wrong = [o for o in originals if below(o.likelihood.named, settings, RENAME, o)]
            if wrong:
                row, _ = _agreed(student, wrong, settings, name=student.text)
                _put(page, row, RENAMED, [*wrong, student], settings)
            _keep(page, [o for o in originals if not any(o is one for one in wrong)], settings)
        _keep(page, [o for o in found.originals if not is_doubted(o, settings)], settings)
        for student in found.students:
            if is_added(student, settings):
                _put(page, _as_student(student, [], settings), ADDED, [student], settings)


def things_by_granularity(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.is_thing:
            groups.setdefault(row.granularity or "", []).append(row)
    return [groups[name] for name in sorted(groups)]


def below(value: float, settings: MergeSettings, name: str, row: Row) -> bool:
    """Whether a likelihood is there and too low."""
    return not math.isnan(value) and value < settings.above(name, row.kind, row.granularity)


def is_doubted(row: Row, settings: MergeSettings) -> bool:
    return below(row.likelihood.named, settings, DOUBT_NAMED, row) or below(
        row.likelihood.located, settings, DOUBT_LOCATED, row
    )


def is_added(row: Row, settings: MergeSettings) -> bool:
    return _sureness(row, settings) >= settings.above(ADD_ABOVE, row.kind, row.granularity)


def strength(row: Row, settings: MergeSettings) -> float:
    """How much a box counts in a mean: by its side, its score, and how likely the student finds its place."""
    side = settings.above(WEIGHT, row.kind, row.granularity) if row.role == "student" else 1.0
    located = row.likelihood.located
    return side * _sureness(row, settings) * (1.0 if math.isnan(located) else located)


def best_score(rows: Sequence[Row], settings: MergeSettings) -> float | None:
    """The surest member's, for that others agree makes it no less sure; None where that one has none."""
    return max(rows, key=lambda row: _sureness(row, settings)).score


def _sureness(row: Row, settings: MergeSettings) -> float:
    return settings.unscored if row.score is None else row.score


def kept_score(row: Row, settings: MergeSettings) -> float | None:
    """Its own; lower by what the student makes of it, where that is known."""
    known = [v for v in (row.likelihood.named, row.likelihood.located) if not math.isnan(v)]
    if not known:
        return row.score
    return _sureness(row, settings) * min(known)


def match_things(rows: Sequence[Row], settings: MergeSettings) -> Matches:
    """`rows` are one image's regions of one granularity."""
    found = Matches()
    humans = [row for row in rows if row.role == "human"]
    originals, further = strongest([row for row in rows if row.role == "original"], settings.max_boxes)
    students, found.left_out = strongest([row for row in rows if row.role == "student"], settings.max_boxes)
    humans, apart = strongest(humans, settings.max_boxes)
    found.human, originals, students = _by_people(humans, originals, students, settings)
    found.human += [(human, []) for human in apart]
    found.joined, originals, students = _joined(originals, students, settings)
    found.parted, originals, students = _parted(originals, students, settings)
    found.agreed, originals, students = _pairs(originals, students, settings, same=True)
    found.renamed, originals, found.students = _pairs(originals, students, settings, same=False)
    found.originals = [*originals, *further]
    return found


def _by_people(
    humans: list[Row], originals: list[Row], students: list[Row], settings: MergeSettings
) -> tuple[list[Pair], list[Row], list[Row]]:
    """A box of a person's name at its place repeats it. The student adds nothing else at a person's box;
    what the originals call otherwise there may be another thing (a rider's bicycle), and stays."""
    pairs: list[Pair] = [(human, []) for human in humans]
    if not humans:
        return pairs, originals, students
    left: list[list[Row]] = []
    for side in (originals, students):
        overlap = iou(boxes_of(side), boxes_of(humans))
        same = np.where(_alike(side, humans, settings), overlap, 0.0)
        stays: list[Row] = []
        for row, own, any_name in zip(side, same, overlap, strict=True):
            if own.max() >= settings.iou:
                pairs[int(own.argmax())][1].append(row)
            elif row.role == "original" or any_name.max() < settings.iou:
                stays.append(row)
        left.append(stays)
    return pairs, left[0], left[1]


def _joined(
    originals: list[Row], students: list[Row], settings: MergeSettings
) -> tuple[list[Pair], list[Row], list[Row]]:
    """Two originals of one source that are one thing to the student, which does not find them likely."""
    pairs: list[Pair] = []
    for group in _by_source(originals):
        parts = [o for o in group if below(o.likelihood.located, settings, MOVE, o)]
        # Held against all boxes of the source: one that fits the student's alone is no part of it.
        whole = covers(
            boxes_of(students),
            boxes_of(group),
            _alike(students, group, settings),
            settings.iou,
            settings.inside,
        )
        for student, rows in zip(students, whole, strict=True):
            members = [group[i] for i in rows]
            if members and all(any(m is p for p in parts) for m in members):
                pairs.append((student, members))
                parts = [p for p in parts if not any(p is m for m in members)]
    return _without(pairs, originals, students)


def _parted(
    originals: list[Row], students: list[Row], settings: MergeSettings
) -> tuple[list[Pair], list[Row], list[Row]]:
    """An original that is several things to the student, which does not find it likely."""
    pairs: list[Pair] = []
    whole = covers(
        boxes_of(originals),
        boxes_of(students),
        _alike(originals, students, settings),
        settings.iou,
        settings.inside,
    )
    taken: set[str] = set()
    for original, rows in zip(originals, whole, strict=True):
        parts = [students[i] for i in rows if students[i].id not in taken]
        if len(parts) >= 2 and below(original.likelihood.located, settings, MOVE, original):
            pairs.append((original, parts))
            taken.update(part.id for part in parts)
    return _without(pairs, originals, students)


def _pairs(
    originals: list[Row], students: list[Row], settings: MergeSettings, *, same: bool
) -> tuple[list[Pair], list[Row], list[Row]]:
    """The student's boxes with the box of each source at their place, of their name or of another."""
    by_student: dict[str, Pair] = {}
    for group in _by_source(originals):
        alike = _alike(group, students, settings)
        for i, j in matched(boxes_of(group), boxes_of(students), alike if same else ~alike, settings.iou):
            by_student.setdefault(students[j].id, (students[j], []))[1].append(group[i])
    return _without(list(by_student.values()), originals, students)


def _without(
    pairs: list[Pair], originals: list[Row], students: list[Row]
) -> tuple[list[Pair], list[Row], list[Row]]:
    gone = {row.id for one, many in pairs for row in (one, *many)}
    return pairs, [o for o in originals if o.id not in gone], [s for s in students if s.id not in gone]


def _by_source(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.source, []).append(row)
    return [groups[source] for source in sorted(groups)]


def _alike(a: Sequence[Row], b: Sequence[Row], settings: MergeSettings) -> Bools:
    """(n, m): whether names are the same."""
    ours, theirs = (np.array([settings.names.key(r.text or "") for r in rows], object) for rows in (a, b))
    return np.asarray(ours[:, None] == theirs[None], bool)


def _as_student(student: Row, others: Sequence[Row], settings: MergeSettings) -> Annotation:
    name = others[0].text if others else student.text
    return Annotation(
        "region", name, student.granularity, box=student.box, quad=student.quad, score=student.score
    )


def _agreed(
    student: Row, originals: Sequence[Row], settings: MergeSettings, name: str | None = None
) -> tuple[Annotation, str]:
    """The mean of what is at one place, or the student's box where it finds none of the originals' likely.

    A quadrangle is not averaged: the first original's stays, with its box.
    """
    trusted = [o for o in originals if not below(o.likelihood.located, settings, MOVE, o)]
    members = [*trusted, student]
    shape = (trusted or [student])[0]
    box: Sequence[float] | None = shape.box
    if shape.quad is None:
        box = mean_box(boxes_of(members), [strength(row, settings) for row in members])
    first = originals[0]
    score = best_score(members, settings)
    row = Annotation(
        "region",
        first.text if name is None else name,
        first.granularity,
        box=box,
        quad=shape.quad,
        score=score,
    )
    return row, AGREED if trusted else MOVED


def _keep(page: Page, originals: Sequence[Row], settings: MergeSettings) -> None:
    for o in originals:
        score = kept_score(o, settings)
        row = Annotation("region", o.text, o.granularity, box=o.box, quad=o.quad, score=score)
        _put(page, row, KEPT, [o], settings)


def _put(
    page: Page,
    row: Annotation,
    reason: str,
    members: Sequence[Row],
    settings: MergeSettings,
    carried: Sequence[Row] | None = None,
) -> None:
    page.put(row, reason, members)
    carry(page, row, members if carried is None else carried, settings)
