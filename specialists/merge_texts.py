"""Texts of whole images merged: for each granularity the original's or the student's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_engine.annotation import Annotation
from data_engine.quality.text import normalised
from specialists.merge_decisions import is_added
from specialists.merge_rows import ADDED, AGREED, CHOSEN, HUMAN, KEPT, MENDED, Page, Row
from specialists.merge_settings import MEND, REPLACE, MergeSettings
from specialists.merge_wording import words_apart

_CLASS = "class"


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """A merged text that phrases may hang on, and the rows that it was made from.

    A text outside of the merge is told by its id alone: it has neither `text` nor `members`. One that is `mended` has
    the words of its members but for some that were exchanged.
    """

    reference: Annotation | str
    text: str | None
    members: tuple[Row, ...]
    mended: bool = False


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
    times as likely, and one that it mended where that of the original is below `mend_below`. A scorer takes the text that
    fits the image better, by more than `scorer_margin`.
    """
    votes = 0
    is_mended = student.source == settings.mended
    share = unmended_share(student) if is_mended else told_share(original, student)
    if not math.isnan(share):
        threshold = MEND if is_mended else REPLACE
        votes += 1 if share < settings.above(threshold, original.kind, original.granularity) else -1
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


def unmended_share(mended: Row) -> float:
    """How probable the student finds the original's text rather than the one that it mended; NaN where that is not known."""
    return math.nan if mended.score is None else 1 - mended.score


def best_text(students: Sequence[Row], settings: MergeSettings) -> Row | None:
    """Of the texts that were written anew the one that the scorer finds best, or else that the student is surest of; of
    equal ones the first by id."""

    def worth(row: Row) -> tuple[float, float]:
        scored = row.likelihood.scored
        return (0.0 if math.isnan(scored) else scored, row.score or 0.0)

    return max((row for row in students if row.source != settings.mended), key=worth, default=None)


def mended_text(original: Row, students: Sequence[Row], settings: MergeSettings) -> Row | None:
    """What the student made of an original by exchanging words: of several texts the one with most of its words."""
    fixes = [row for row in students if row.source == settings.mended]
    if len(fixes) < 2:
        return fixes[0] if fixes else None
    return min(fixes, key=lambda row: (words_apart(original.text or "", row.text or ""), row.id))


def _merged(page: Page, granularity: str, rows: Sequence[Row], settings: MergeSettings) -> list[Told]:
    students = [row for row in rows if row.role == "student"]
    theirs = [row for row in rows if row.role != "student"]
    best = best_text(students, settings)
    told: list[Told] = []
    replaced: list[tuple[Row, Row, str]] = []
    for row in theirs:
        # Case and blanks make no other text.
        same = [s for s in students if normalised(s.text or "") == normalised(row.text or "")]
        fix = mended_text(row, students, settings)
        if row.role == "human":
            told.append(_put(page, row, HUMAN, [row, *same]))
        elif same:
            told.append(_put(page, row, AGREED, [row, *same]))
        elif fix is not None and prefers_student(row, fix, settings):
            replaced.append((row, fix, MENDED))
        elif granularity != _CLASS and best is not None and prefers_student(row, best, settings):
            replaced.append((row, best, CHOSEN))
        else:
            told.append(_put(page, row, KEPT, [row]))
    for row, instead, reason in replaced:
        # Whether the student's stands there already or not, it is what the others became.
        there = next((i for i, one in enumerate(told) if any(m is instead for m in one.members)), None)
        if there is None:
            told.append(_put(page, instead, reason, [instead, row]))
        else:
            told[there] = _joined(page, told[there], [row])
    free = [row for row in students if row.source != settings.mended]
    added = free if granularity == _CLASS else [best] if best is not None and not theirs else []
    known = {normalised(row.text or "") for row in theirs}
    for row in added:
        if normalised(row.text or "") not in known and is_added(row, settings):
            told.append(_put(page, row, ADDED, [row]))
    return told


def _put(page: Page, row: Row, reason: str, members: Sequence[Row]) -> Told:
    text = Annotation("text", row.text, row.granularity, box=row.box, score=row.score)
    return Told(page.put(text, reason, members), row.text, tuple(members), reason == MENDED)


def _joined(page: Page, told: Told, replaced: Sequence[Row]) -> Told:
    made = next(made for made in page.made if made.row is told.reference)
    made.members += [row.id for row in replaced]
    page.used.update(row.id for row in replaced)
    return Told(told.reference, told.text, (*told.members, *replaced), told.mended)
