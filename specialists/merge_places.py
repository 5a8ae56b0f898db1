"""Which regions of one image are one thing: people's, the originals' and the student's, each put in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from data_engine.overlap import iou
from specialists.merge_decisions import below, sureness
from specialists.merge_matching import Bools, covers, first_of_each, matched
from specialists.merge_rows import Row, boxes_of, strongest
from specialists.merge_settings import MOVE, MergeSettings

Pair = tuple[Row, list[Row]]


@dataclass(slots=True, eq=False)
class Matches:
    """One image's regions of one granularity, each in one place.

    `human`: people's regions, each with what repeats it. `joined`: a student's region and the originals that
    are parts of it. `parted`: an original and the student's that are parts of it. `agreed` and `renamed`: a
    student's region and the originals at its place, of its name and of others. `near`: a student's region and the
    originals of its name that it finds close by. `originals` and `students`
    are left over, and so are the originals too many to be matched; `left_out` are the student's.
    """

    human: list[Pair] = field(default_factory=list)
    joined: list[Pair] = field(default_factory=list)
    parted: list[Pair] = field(default_factory=list)
    agreed: list[Pair] = field(default_factory=list)
    near: list[Pair] = field(default_factory=list)
    renamed: list[Pair] = field(default_factory=list)
    originals: list[Row] = field(default_factory=list)
    students: list[Row] = field(default_factory=list)
    left_out: list[Row] = field(default_factory=list)


def things_by_granularity(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.is_thing:
            groups.setdefault(row.granularity or "", []).append(row)
    return [groups[name] for name in sorted(groups)]


def match_things(rows: Sequence[Row], settings: MergeSettings) -> Matches:
    """`rows` are one image's regions of one granularity."""
    found = Matches()
    humans = [row for row in rows if row.role == "human"]
    originals, further = strongest([row for row in rows if row.role == "original"], settings.max_boxes)
    students, found.left_out = strongest([row for row in rows if row.role == "student"], settings.max_boxes)
    students = _shown_first(students, settings)
    said = students
    humans, apart = strongest(humans, settings.max_boxes)
    found.human, originals, students = _by_people(humans, originals, students, settings)
    found.human += [(human, []) for human in apart]
    found.joined, originals, students = _joined(originals, students, settings)
    found.parted, originals, students = _parted(originals, students, settings)
    found.agreed, originals, students = _pairs(originals, students, settings, same=True)
    students = _once(students, said, settings)
    found.near, originals, students = _near(originals, students, settings)
    found.renamed, originals, found.students = _pairs(originals, students, settings, same=False)
    found.originals = [*originals, *further]
    return found


def _shown_first(students: list[Row], settings: MergeSettings) -> list[Row]:
    """Where the student was shown places, those, and of what it listed itself what it is sure of elsewhere."""
    shown = [row for row in students if row.source == settings.pointed]
    if not shown:
        return students
    sure = [
        row
        for row in students
        if row.source != settings.pointed and sureness(row, settings) >= settings.list_above
    ]
    overlap = iou(boxes_of(sure), boxes_of(shown))
    there = (overlap >= settings.iou) | (_alike(sure, shown, settings) & (overlap >= settings.near_iou))
    elsewhere = ~np.any(there, axis=1)
    return [*shown, *(row for row, apart in zip(sure, elsewhere.tolist(), strict=True) if apart)]


def _once(left: list[Row], students: Sequence[Row], settings: MergeSettings) -> list[Row]:
    """Of what is left of the student's boxes one for each thing that it has no other box for: two at one place may have
    been named alike when it was asked about each. What has no name repeats nothing."""
    ids = {row.id for row in left}
    used = [row for row in students if row.id not in ids and row.text]
    order = sorted((s for s in left if s.text), key=lambda s: -1.0 if s.score is None else -s.score)
    repeats = _alike(order, used, settings) & (iou(boxes_of(order), boxes_of(used)) >= settings.iou)
    stays = first_of_each(boxes_of(order), _alike(order, order, settings), settings.iou)
    stays &= ~repeats.any(axis=1)
    gone = {row.id for row, one in zip(order, stays.tolist(), strict=True) if not one}
    return [row for row in left if row.id not in gone]


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


def _near(
    originals: list[Row], students: list[Row], settings: MergeSettings
) -> tuple[list[Pair], list[Row], list[Row]]:
    """What is left of both, of one name and with some overlap: one thing, and one of the boxes is out of place. Only
    where it is known how likely the student finds the original's: else they may as well be two."""
    judged = [o for o in originals if o.text and not math.isnan(o.likelihood.located)]
    wider = replace(settings, iou=min(settings.near_iou, settings.iou))
    pairs, _, _ = _pairs(judged, students, wider, same=True)
    return _without(pairs, originals, students)


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
