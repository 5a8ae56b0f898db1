"""Phrases merged: what the words of each merged text point at, by the originals and by the student's grounding.

The student grounds its own texts, or those of the originals where its specialist `needs` them: what it finds
there hangs on the original's text. Where it grounds its own alone, what it found for the same words serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_engine.annotation import Annotation
from data_engine.blacklist import plain_phrase
from specialists.florence2.spans import Span, phrase_spans
from specialists.merge_carried import carry
from specialists.merge_decisions import below, best_score, is_added, is_doubted, kept_score, strength
from specialists.merge_matching import matched, mean_box
from specialists.merge_rows import ADDED, AGREED, HUMAN, KEPT, MOVED, Page, Row, boxes_of, strongest
from specialists.merge_settings import MOVE, SHIFT, MergeSettings
from specialists.merge_texts import Told
from specialists.merge_wording import moved_span

_SAME_WORDS = 0.5
"""The IoU of characters from which "red star" is the phrase "a red star", as where grounding is judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A phrase's box, with the words of the merged text that it is about."""

    row: Row
    words: str | None
    span: Span | None


@dataclass(slots=True, eq=False)
class Links:
    """All boxes of one phrase of a merged text."""

    words: str | None
    span: Span | None
    humans: list[Row] = field(default_factory=list)
    originals: list[Row] = field(default_factory=list)
    students: list[Row] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class LinkMatches:
    """Of one phrase people's boxes, the student's with the originals' at their place, one that the student was shown with
    the originals elsewhere, and what is left of both."""

    human: list[tuple[Row, list[Row]]]
    agreed: list[tuple[Row, list[Row]]]
    shown: list[tuple[Row, list[Row]]]
    originals: list[Row]
    students: list[Row]
    left_out: list[Row]


def merge_phrases(page: Page, told: Sequence[Told], settings: MergeSettings) -> None:
    """Put the phrases of the merged texts on the page, each with its masks."""
    for text in (*told, *_outside(page)):
        for links in links_of(page, text):
            _merge(page, text, links, settings)


def links_of(page: Page, told: Told) -> list[Links]:
    """The phrases of a merged text, first those that people or the originals have linked."""
    parents = [member.id for member in told.members] or [str(told.reference)]
    same = {m.id for m in told.members if m.text == told.text} if told.members else set(parents)
    wordings = {member.id: member.text or "" for member in told.members}
    ours: list[Link] = []
    theirs: dict[bool, list[Link]] = {True: [], False: []}
    for parent in parents:
        rows = [row for row in page.children.get(parent, ()) if row.is_link]
        links = _anchored(
            rows, None if parent in same else told.text, wordings.get(parent) if told.mended else None
        )
        ours += [link for link in links if link.row.role != "student"]
        theirs[parent in same] += [link for link in links if link.row.role == "student"]
    phrases: list[Links] = []
    for link in ours:
        found = _same_phrase(phrases, link, exact=True)
        if found is None:
            phrases.append(found := Links(link.words, link.span))
        (found.humans if link.row.role == "human" else found.originals).append(link.row)
    # What the student found in this very text; without that, in one that was replaced; else in its own.
    found_here = theirs[True] or theirs[False]
    _add_students(phrases, found_here)
    if not found_here:
        _add_elsewhere(phrases, _own_links(page, told), told.text or "")
    return phrases


def _add_students(phrases: list[Links], links: Sequence[Link]) -> None:
    seen: set[tuple[object, ...]] = set()
    for link in links:
        if (link.span, link.words, link.row.box) in seen:
            continue
        seen.add((link.span, link.words, link.row.box))
        found = _same_phrase(phrases, link, exact=False)
        if found is None and link.span is not None:
            phrases.append(found := Links(link.words, link.span))
        if found is not None:
            found.students.append(link.row)


def _own_links(page: Page, told: Told) -> list[Row]:
    """What the student found in its own texts, where it was not asked about those of others and did not say this."""
    said = any(member.role == "student" for member in told.members)
    by_student: dict[str, list[Row]] = {}
    for row in page.rows:
        if row.is_link and row.role == "student":
            by_student.setdefault(row.parent or "", []).append(row)
    own = {row.id for row in page.rows if row.is_text and row.role == "student"}
    if told.text is None or said or not by_student.keys() <= own:
        return []
    return [row for parent in sorted(by_student) for row in by_student[parent]]


def _add_elsewhere(phrases: list[Links], rows: Sequence[Row], text: str) -> None:
    """A phrase with the same words but for articles means the same. Words that are no phrase yet are one where
    they bring an article of their own: "red star" may stand in "a small red star"."""
    known: dict[str, list[Links]] = {}
    for phrase in phrases:
        known.setdefault(plain_phrase(phrase.words or ""), []).append(phrase)
    new: list[Row] = []
    for row in rows:
        plain = plain_phrase(row.text or "")
        for phrase in known.get(plain, ()):
            if all(row.box != other.box for other in phrase.students):
                phrase.students.append(row)
        if plain not in known and plain != " ".join((row.text or "").casefold().split()):
            new.append(row)
    ours = list(phrases)
    _add_students(
        phrases, [link for link in _anchored(new, text) if _same_phrase(ours, link, exact=False) is None]
    )


def match_links(links: Links, settings: MergeSettings) -> LinkMatches:
    human: list[tuple[Row, list[Row]]] = [(row, []) for row in links.humans]
    most = settings.max_boxes
    shown = [row for row in links.students if row.source == settings.pointed]
    (held, further), (said, left_out) = (
        strongest(links.originals, most),
        strongest(shown or links.students, most),
    )
    free = [held, said]
    if links.humans:
        for side in (0, 1):
            by_id = {row.id: row for row in free[side]}
            for i, j in _matched(links.humans[:most], free[side], settings):
                human[i][1].append(free[side][j])
                by_id.pop(free[side][j].id, None)
            free[side] = list(by_id.values())
    originals, students = free
    by_student: dict[str, tuple[Row, list[Row]]] = {}
    for source in sorted({row.source for row in originals}):
        group = [row for row in originals if row.source == source]
        for i, j in _matched(group, students, settings):
            by_student.setdefault(students[j].id, (students[j], []))[1].append(group[i])
    agreed = list(by_student.values())
    gone = {row.id for one, many in agreed for row in (one, *many)}
    ours, theirs = ([row for row in side if row.id not in gone] for side in (originals, students))
    ours += further
    # One thing is meant, and the student was shown one that the words fit: what lies elsewhere is another, or this is.
    judged = [o for o in ours if not math.isnan(o.likelihood.located)]
    if len(shown) != 1 or not theirs or not judged or links.humans:
        return LinkMatches(human, agreed, [], ours, theirs, left_out)
    ours = [o for o in ours if math.isnan(o.likelihood.located)]
    return LinkMatches(human, agreed, [(theirs[0], judged)], ours, [], left_out)


def _merge(page: Page, told: Told, links: Links, settings: MergeSettings) -> None:
    found = match_links(links, settings)
    page.left_out += len(found.left_out)

    def put(box: Sequence[float] | None, score: float | None, reason: str, members: Sequence[Row]) -> None:
        row = Annotation(
            "phrase", links.words, members[0].granularity, told.reference, links.span, box, score=score
        )
        page.put(row, reason, members)
        carry(page, row, members, settings)

    for human, others in found.human:
        put(human.box, human.score, HUMAN, [human, *others])
    for student, originals in found.agreed:
        trusted = [o for o in originals if not below(o.likelihood.located, settings, MOVE, o)]
        rows = [*trusted, student]
        box = mean_box(boxes_of(rows), [strength(row, settings) for row in rows])
        put(box, best_score(rows, settings), AGREED if trusted else MOVED, [*originals, student])
    for student, originals in found.shown:
        astray = [o for o in originals if below(o.likelihood.located, settings, SHIFT, o)]
        if astray:
            put(student.box, student.score, MOVED, [*astray, student])
        for o in originals:
            if not any(o is one for one in astray):
                put(o.box, kept_score(o, settings), KEPT, [o])
    doubted = [o for o in found.originals if is_doubted(o, settings)]
    for o in found.originals:
        if not any(o is one for one in doubted):
            put(o.box, kept_score(o, settings), KEPT, [o])
    for student in found.students:
        if doubted:
            put(student.box, student.score, MOVED, [*doubted, student])
        elif not links.humans and is_added(student, settings):
            put(student.box, student.score, ADDED, [student])


def _matched(a: Sequence[Row], b: Sequence[Row], settings: MergeSettings) -> list[tuple[int, int]]:
    return matched(boxes_of(a), boxes_of(b), np.ones((len(a), len(b)), bool), settings.iou)


def _outside(page: Page) -> Iterable[Told]:
    """Texts that are not merged, but that people or the originals have linked phrases of."""
    known = {row.id for row in page.rows}
    for parent in sorted(page.children):
        if parent not in known and any(r.is_link and r.role != "student" for r in page.children[parent]):
            yield Told(parent, None, ())


def _anchored(rows: Sequence[Row], text: str | None, before: str | None = None) -> list[Link]:
    """Each with its words and span, in their order; with a `text`, where it stands in that one, if it does.

    Where that text was made of `before` by exchanging words, a phrase is what stands in its place: it points at the same
    thing as before.
    """
    rows = sorted(rows, key=lambda row: (row.span or (-1, -1), row.id))
    if text is None:
        return [Link(row, row.text, row.span) for row in rows]
    phrases = list(dict.fromkeys((row.span, row.text or "") for row in rows))
    spans = dict(zip(phrases, phrase_spans(text, [words for _, words in phrases]), strict=True))
    found: list[Link] = []
    for row in rows:
        span = spans[row.span, row.text or ""]
        if before is not None and row.span is not None:
            span = moved_span(before, text, row.span)
        if span is not None:
            found.append(Link(row, text[slice(*span)], span))
    return found


def _same_phrase(phrases: Sequence[Links], link: Link, *, exact: bool) -> Links | None:
    if link.span is None or exact:
        return next((p for p in phrases if (p.span, p.words) == (link.span, link.words)), None)
    shares = [0.0 if p.span is None else _shared(p.span, link.span) for p in phrases]
    best = max(range(len(shares)), key=lambda i: shares[i], default=-1)
    return phrases[best] if best >= 0 and shares[best] >= _SAME_WORDS else None


def _shared(a: Span, b: Span) -> float:
    """IoU of characters."""
    common = min(a[1], b[1]) - max(a[0], b[0])
    whole = max(a[1], b[1]) - min(a[0], b[0])
    return common / whole if whole > 0 and common > 0 else 0.0
