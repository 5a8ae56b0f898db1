"""Regions merged: what comes of each thing that the originals or the student see (`merge_places`).

Regions of one granularity are held against each other: categories, lines of text, proposals, descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_engine.annotation import Annotation
from specialists.merge_carried import carry
from specialists.merge_decisions import below, best_score, is_added, is_doubted, kept_score, strength
from specialists.merge_matching import mean_box
from specialists.merge_places import match_things, things_by_granularity
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
)
from specialists.merge_settings import MOVE, RENAME, SHIFT, MergeSettings


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
        for student, originals in found.near:
            apart = [o for o in originals if below(o.likelihood.located, settings, SHIFT, o)]
            if apart:
                row = _as_student(student, apart, settings)
                _put(page, row, MOVED, [*apart, student], settings)
            _keep(page, [o for o in originals if not any(o is one for one in apart)], settings)
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
