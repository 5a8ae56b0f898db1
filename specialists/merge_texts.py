"""Texts of whole images merged: for each granularity the original's or the student's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_engine.annotation import Annotation
from data_engine.quality.text import normalised
from specialists.merge_decisions import is_added
from specialists.merge_rows import ADDED, AGREED, CHOSEN, HUMAN, KEPT, Page, Row
from specialists.merge_settings import REPLACE, MergeSettings

_CLASS = "class"


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """A merged text that phrases may hang on, and the rows that it was made from.

    A text outside of the merge is told by its id alone: it has neither `text` nor `members`.
    """

    reference: Annotation | str
    text: str | None
    members: tuple[Row, ...]


def merge_texts(page: Page, settings: MergeSettings) -> list[Told]:
    """Put the merged texts on the page."""
    groups: dict[str, list[Row]] = {}
    for row in page.rows:
        if row.is_text:
            groups.setdefault(row.granularity or "", []).append(row)
    return [told for name in sorted(groups) for told in _merged(page, name, groups[name], settings)]


def prefers_student(original: Row, student: Row, settings: MergeSettings) -> bool:
    """Whether the judges that there are take the student's text; where they are undecided the original stays.

    The student itself is a judge: it takes its own text where it finds the original less than `replace_below`
    times as likely per token. A scorer takes the text that fits the image better, by more than `scorer_margin`.
    """
    votes = 0
    share = told_share(original, student)
    if not math.isnan(share):
        votes += 1 if share < settings.above(REPLACE, original.kind, original.granularity) else -1
    better = student.likelihood.scored - original.likelihood.scored
    if abs(better) > settings.scorer_margin:
        votes += 1 if better > 0 else -1
    return votes > 0


def told_share(original: Row, student: Row) -> float:
    """How likely the student finds the original's text, as a share of its own; NaN where that is not known.

    The likelihood is already relative to what it would say at each token. A text of its own that nobody judged
    has 1, as a greedy answer does.
    """
    own = student.likelihood.told
    if math.isnan(own):
        return original.likelihood.told
    return original.likelihood.told / own if own > 0 else math.nan


def best_text(students: Sequence[Row], settings: MergeSettings) -> Row | None:
    """The text that the scorer finds best, or else of the student's source that is named first, or else that the
    student is surest of; of equal ones the first by id."""
    order = {source: -place for place, source in enumerate(settings.student)}

    def worth(row: Row) -> tuple[float, int, float]:
        scored = row.likelihood.scored
        return (0.0 if math.isnan(scored) else scored, order[row.source], row.score or 0.0)

    return max(students, key=worth, default=None)


def _merged(page: Page, granularity: str, rows: Sequence[Row], settings: MergeSettings) -> list[Told]:
    students = [row for row in rows if row.role == "student"]
    theirs = [row for row in rows if row.role != "student"]
    best = best_text(students, settings)
    told: list[Told] = []
    replaced: list[Row] = []
    for row in theirs:
        # Case and blanks make no other text.
        same = [s for s in students if normalised(s.text or "") == normalised(row.text or "")]
        if row.role == "human":
            told.append(_put(page, row, HUMAN, [row, *same]))
        elif same:
            told.append(_put(page, row, AGREED, [row, *same]))
        elif granularity != _CLASS and best is not None and prefers_student(row, best, settings):
            replaced.append(row)
        else:
            told.append(_put(page, row, KEPT, [row]))
    if replaced and best is not None:
        # Whether the student's stands there already or not, it is what the others became.
        there = next((i for i, one in enumerate(told) if any(m is best for m in one.members)), None)
        if there is None:
            told.append(_put(page, best, CHOSEN, [best, *replaced]))
        else:
            told[there] = _joined(page, told[there], replaced)
    added = students if granularity == _CLASS else [best] if best is not None and not theirs else []
    known = {normalised(row.text or "") for row in theirs}
    for row in added:
        if normalised(row.text or "") not in known and is_added(row, settings):
            told.append(_put(page, row, ADDED, [row]))
    return told


def _put(page: Page, row: Row, reason: str, members: Sequence[Row]) -> Told:
    text = Annotation("text", row.text, row.granularity, box=row.box, score=row.score)
    return Told(page.put(text, reason, members), row.text, tuple(members))


def _joined(page: Page, told: Told, replaced: Sequence[Row]) -> Told:
    made = next(made for made in page.made if made.row is told.reference)
    made.members += [row.id for row in replaced]
    page.used.update(row.id for row in replaced)
    return Told(told.reference, told.text, (*told.members, *replaced))
