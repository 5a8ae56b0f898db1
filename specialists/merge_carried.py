"""What hangs on a region or phrase goes with it: descriptions, noun chunks, masks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from data_engine.annotation import Annotation
from data_engine.overlap import iou
from specialists.merge_rows import ADDED, AGREED, HUMAN, KEPT, Made, Page, Row, boxes_of
from specialists.merge_settings import DOUBT_NAMED, MergeSettings


def carry(page: Page, row: Annotation, members: Sequence[Row], settings: MergeSettings) -> None:
    """Put on the page what hangs on the members of the merged `row`, each thing once.

    People's and the originals' texts come first, and the student's where none of that granularity is left.
    Left out is an original's text that the student finds unlikely, or that says a name which the region no
    longer has. A text takes the merged box. A mask is never changed: it comes along where the box that it
    was made for overlaps the merged one at IoU `mask_iou` or more. An original's gives way to the student's where
    the merged box is the very one that the student's was made for.
    """
    own: list[tuple[Row, Row]] = []
    students: list[tuple[Row, Row]] = []
    for member in members:
        for child in page.children.get(member.id, ()):
            (students if child.role == "student" else own).append((member, child))
    put: dict[tuple[str, ...], Made] = {}
    replaced = _has_its_mask(row, students) and not _has_its_mask(row, own)
    for member, child in own:
        fits = (
            not _is_wrong(row, member, child, settings)
            if child.mask is None
            else not replaced and _fits(row, member, settings)
        )
        if fits:
            _put(page, row, member, child, put)
    there = {key[:2] for key in put}
    for member, child in students:
        key = _key(child)
        if key in put or (key[:2] not in there and (child.mask is None or _fits(row, member, settings))):
            _put(page, row, member, child, put)


def merge_outside(page: Page) -> None:
    """Put on the page what hangs on statements that are not merged, or stands for itself and fits no rule.

    Of people's, whatever is not there yet.
    """
    known = {row.id for row in page.rows}
    for row in page.of("human", "original"):
        apart = row.kind != "text" and not row.is_thing and row.parent not in known
        if row.id not in page.used and (apart or row.role == "human"):
            annotation = Annotation(
                row.kind,
                row.text,
                row.granularity,
                row.parent,
                row.span,
                row.box,
                row.quad,
                row.mask,
                row.score,
            )
            page.put(annotation, _reason(row), [row])


def _put(page: Page, row: Annotation, member: Row, child: Row, put: dict[tuple[str, ...], Made]) -> None:
    key = _key(child)
    if key in put:
        _join(page, put[key], child)
        return
    # A box of its own, as a mask has, or one that has not moved.
    own = child.mask is not None or (row.box is not None and tuple(row.box) == member.box)
    annotation = Annotation(
        child.kind,
        child.text,
        child.granularity,
        row,
        box=child.box if own else row.box,
        quad=child.quad,
        mask=child.mask,
        score=child.score,
    )
    page.put(annotation, _reason(child), [child])
    put[key] = page.made[-1]


def _join(page: Page, made: Made, child: Row) -> None:
    if child.id not in made.members:
        made.members.append(child.id)
        page.used.add(child.id)
        if child.role == "student" and made.reason == KEPT:
            made.reason = AGREED


def _reason(child: Row) -> str:
    return {"human": HUMAN, "original": KEPT}.get(child.role, ADDED)


def _key(child: Row) -> tuple[str, ...]:
    """What it is, and what it says."""
    if child.mask is not None:
        return ("mask", "", str(child.mask["counts"]))
    return ("text", child.granularity or "", " ".join((child.text or "").casefold().split()))


def _is_wrong(row: Annotation, member: Row, child: Row, settings: MergeSettings) -> bool:
    named = child.likelihood.named
    if child.role == "human":
        return False
    if not math.isnan(named) and named < settings.above(DOUBT_NAMED, child.kind, child.granularity):
        return True
    if not member.text or settings.names.key(member.text) == settings.names.key(row.text or ""):
        return False
    return re.search(rf"(?<!\w){re.escape(member.text)}", child.text or "", re.IGNORECASE) is not None


def _has_its_mask(row: Annotation, hanging: Sequence[tuple[Row, Row]]) -> bool:
    """Whether one of the masks was made for the very box that was taken."""
    return row.box is not None and any(
        child.mask is not None and member.box == tuple(row.box) for member, child in hanging
    )


def _fits(row: Annotation, member: Row, settings: MergeSettings) -> bool:
    if row.box is None or member.box is None:
        return False
    if tuple(row.box) == member.box:
        return True
    return bool(iou(np.array([row.box], np.float64), boxes_of([member]))[0, 0] >= settings.mask_iou)
