"""Examples for the threshold of texts that hang on a region: its descriptions, noun chunks and further names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_engine.overlap import iou
from specialists.merge_rows import Page, Row, boxes_of
from specialists.merge_settings import DEFAULTS, DOUBT_NAMED, MergeSettings, key_of
from specialists.merge_sweep import sweep
from specialists.merge_truth import best_truths


@dataclass(slots=True, eq=False)
class Hanging:
    """Of the texts of one key: how many truth has, and of each of the originals' the likelihood, whether it is
    right, whether the student has one in its place, and whether that is right."""

    truths: int = 0
    rows: list[tuple[float, bool, bool, bool]] = field(default_factory=list)

    def threshold(self) -> float:
        """Below which `merge_carried` is best to leave the originals' text out, by F1."""
        rows = np.array(self.rows, np.float64)
        above = np.column_stack([np.ones(len(rows)), rows[:, 1]])
        found, _ = sweep(rows[:, 0], above, rows[:, 2:], (0.0, 0.0), self.truths, DEFAULTS[DOUBT_NAMED])
        return found


def hanging_examples(
    page: Page, truth: Sequence[Row], settings: MergeSettings, found: dict[str, Hanging]
) -> None:
    """Add those of one image, by key. Of what truth has nothing of, nothing is known."""
    true: dict[str, list[Row]] = {}
    for row in truth:
        if _hangs(row) and row.box is not None:
            true.setdefault(key_of(row.kind, row.granularity), []).append(row)
    for key, rows in true.items():
        found.setdefault(key, Hanging()).truths += len(rows)
    students = [row for row in page.of("student") if row.is_thing]
    for key, member, child in judged_hanging(page):
        if key in true:
            rival = _rival(page, member, child, students, settings)
            right = _is_right(child, member, true[key], settings)
            theirs = rival is not None and _is_right(rival, member, true[key], settings)
            found[key].rows.append((child.likelihood.named, right, rival is not None, theirs))


def judged_hanging(page: Page) -> Iterator[tuple[str, Row, Row]]:
    """Each text of the originals that hangs on a thing of theirs and was judged: its key, the thing, and it."""
    for member in page.of("original"):
        for child in page.children.get(member.id, ()) if member.is_thing else ():
            if child.role == "original" and _hangs(child) and not math.isnan(child.likelihood.named):
                yield key_of(child.kind, child.granularity), member, child


def _hangs(row: Row) -> bool:
    return row.kind == "region" and row.parent is not None and row.mask is None and bool(row.text)


def _is_right(child: Row, member: Row, truth: Sequence[Row], settings: MergeSettings) -> bool:
    best = best_truths("region", [child.text or ""], boxes_of([member]), truth, settings.names)
    return bool(best[0] >= 0)


def _rival(
    page: Page, member: Row, child: Row, students: Sequence[Row], settings: MergeSettings
) -> Row | None:
    """The student's text of that granularity on its region at the member's place."""
    if not students:
        return None
    overlap = iou(boxes_of([member]), boxes_of(students))[0]
    if overlap.max() < settings.iou:
        return None
    there = page.children.get(students[int(overlap.argmax())].id, ())
    return next((c for c in there if _hangs(c) and c.granularity == child.granularity), None)
