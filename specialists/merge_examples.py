"""Examples for thresholds: what a merge would decide about, and what each decision would be worth by truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from data_engine.overlap import Floats
from specialists.merge_decisions import strength
from specialists.merge_matching import mean_box
from specialists.merge_phrases import links_of, match_links
from specialists.merge_places import match_things, things_by_granularity
from specialists.merge_rows import Page, Row, boxes_of
from specialists.merge_settings import MEND, REPLACE, MergeSettings, key_of
from specialists.merge_texts import Told, best_text, mended_text, told_share, unmended_share
from specialists.merge_truth import Worth, best_truths, things_of, worth_of

_NONE = -1


@dataclass(slots=True, eq=False)
class Examples:
    """Of statements of one key. Truths are numbered over all images; -1 is none.

    `fixed`: the truths of statements that no threshold decides about. `added`: score and truth of what only
    the student says. `kept`: both likelihoods, truth, and the truth of what the student says instead (-1 for
    none of it right, -2 for nothing said). `renamed`: likelihood of the name, truth under the original's name
    and under the student's. `near`: likelihood of the place, truth at the original's box and at the student's. `agreed`, of a thing that is right: how likely the originals' place is, how much they
    count, their mean box, how much the student's counts at a weight of 1, its box, and truth's: 15 numbers.
    `places`: how likely the originals' place is, of all things that agree.
    """

    truths: int = 0
    fixed: list[int] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    kept: list[tuple[float, float, int, int]] = field(default_factory=list)
    renamed: list[tuple[float, int, int]] = field(default_factory=list)
    near: list[tuple[float, int, int]] = field(default_factory=list)
    agreed: list[tuple[float, ...]] = field(default_factory=list)
    places: list[float] = field(default_factory=list)


def region_examples(
    page: Page, truth: Sequence[Row], settings: MergeSettings, found: dict[str, Examples]
) -> None:
    """Add those of one image's regions, by key."""
    true = things_of(truth)
    for things in things_by_granularity(page.rows):
        key = key_of("region", things[0].granularity)
        about = _About("region", true.get(key, []), settings, found.setdefault(key, Examples()))
        parts = match_things(things, settings)
        about.fixed([h for h, _ in parts.human])
        about.fixed([s for s, _ in parts.joined])
        about.fixed([s for _, students in parts.parted for s in students])
        about.agreed([(s, s.text or "", originals) for s, originals in parts.agreed])
        about.renamed(parts.renamed)
        about.near(parts.near)
        about.kept(parts.originals, [None] * len(parts.originals))
        about.added(parts.students)
        about.examples.truths += len(about.truth)


def link_examples(
    page: Page,
    told: Sequence[Told],
    truth: Sequence[Row],
    settings: MergeSettings,
    found: dict[str, Examples],
) -> None:
    """Add those of the phrases of one image's merged texts. An original that is doubted gives way to the student's
    box of its phrase, where it has one.

    Each text is held against the phrases of truth's texts of its granularity, and of them all where it has none: a
    thing is spoken of in captions of several lengths, and each of them should point at it.
    """
    examples = found.setdefault("phrase", Examples())
    texts = {row.id: row.granularity for row in truth if row.is_text}
    phrases = things_of(truth).get("phrase", [])
    for text in told:
        own = text.reference.granularity if isinstance(text.reference, Annotation) else None
        true = [row for row in phrases if own is None or texts.get(row.parent or "", own) == own]
        about = _About("phrase", true, settings, examples)
        for links in links_of(page, text):
            parts = match_links(links, settings)
            words = links.words or ""
            about.fixed([h for h, _ in parts.human])
            about.agreed([(s, words, originals) for s, originals in parts.agreed])
            about.near([(replace(s, text=words), originals) for s, originals in parts.shown])
            rival = max(parts.students, key=lambda s: s.score or 0.0, default=None)
            about.kept(parts.originals, [rival] * len(parts.originals))
            if not parts.originals and not links.humans:
                about.added(parts.students)
        examples.truths += len(true)


def text_examples(
    page: Page,
    truth: Sequence[Row],
    worth: Worth,
    settings: MergeSettings,
    found: dict[tuple[str, str], list[tuple[float, ...]]],
) -> None:
    """Add, by threshold and key, the share that the student gives each original's text, what it is worth, and what the
    text instead. Whether one is written anew is learnt from those that were not mended."""
    true = things_of(truth)
    told = [row.text or "" for row in truth if row.kind == "region" and row.granularity == "brief"]
    for name, key, share, row, instead in judged_texts(page, settings):
        texts = [true_row.text or "" for true_row in true.get(key, [])]
        if texts:
            valued = worth_of(key, worth)
            values = (valued(one.text or "", texts, told) for one in (row, instead))
            found.setdefault((name, key), []).append((share, *values))


def judged_texts(page: Page, settings: MergeSettings) -> Iterator[tuple[str, str, float, Row, Row]]:
    """Each text of the originals that a threshold decides about: its name and key, the share that the student gives the
    text, and what stands instead of it below the threshold."""
    groups: dict[str, list[Row]] = {}
    for row in page.rows:
        if row.is_text and row.granularity != "class":
            groups.setdefault(key_of(row.kind, row.granularity), []).append(row)
    for key, rows in groups.items():
        students = [row for row in rows if row.role == "student"]
        best = best_text(students, settings)
        for row in rows:
            fix = mended_text(row, students, settings) if row.role == "original" else None
            instead = fix or best
            if instead is None or row.role != "original":
                continue
            share = told_share(row, instead) if fix is None else unmended_share(fix)
            # Where the scorer holds to the original, no likelihood replaces it.
            held = row.likelihood.scored - instead.likelihood.scored > settings.scorer_margin
            if not math.isnan(share) and not held:
                yield (REPLACE if fix is None else MEND), key, share, row, instead


@dataclass(slots=True, eq=False)
class _About:
    """One image's statements of one key, and the truths that they may be right about."""

    kind: str
    truth: Sequence[Row]
    settings: MergeSettings
    examples: Examples

    def fixed(self, rows: Sequence[Row]) -> None:
        self.examples.fixed += self._numbers([row.text or "" for row in rows], boxes_of(rows)).tolist()

    def agreed(self, pairs: Sequence[tuple[Row, str, list[Row]]]) -> None:
        for student, words, originals in pairs:
            strengths = [strength(row, self.settings) for row in originals]
            theirs = mean_box(boxes_of(originals), strengths)
            own = strength(student, self.settings)
            both = mean_box(np.array([theirs, student.box], np.float64), [sum(strengths), own])
            number = int(self._numbers([words], np.array([both], np.float64))[0])
            self.examples.fixed.append(number)
            located = max(o.likelihood.located for o in originals)
            self.examples.places.append(located)
            if number >= 0:
                true = self.truth[number - self.examples.truths].box or ()
                self.examples.agreed.append(
                    (located, sum(strengths), *theirs, own, *(student.box or ()), *true)
                )

    def renamed(self, pairs: Sequence[tuple[Row, list[Row]]]) -> None:
        for original, ours, theirs in self._either(pairs):
            self.examples.renamed.append((original.likelihood.named, ours, theirs))

    def near(self, pairs: Sequence[tuple[Row, list[Row]]]) -> None:
        for original, ours, theirs in self._either(pairs):
            self.examples.near.append((original.likelihood.located, ours, theirs))

    def _either(self, pairs: Sequence[tuple[Row, list[Row]]]) -> Iterator[tuple[Row, int, int]]:
        """Each original with the truth that it is right about, and that which the student's is right about."""
        for student, originals in pairs:
            (theirs,) = self._numbers([student.text or ""], boxes_of([student]))
            ours = self._numbers([o.text or "" for o in originals], boxes_of(originals))
            for original, number in zip(originals, ours.tolist(), strict=True):
                yield original, number, int(theirs)

    def kept(self, rows: Sequence[Row], rivals: Sequence[Row | None]) -> None:
        numbers = self._numbers([row.text or "" for row in rows], boxes_of(rows))
        for row, rival, number in zip(rows, rivals, numbers.tolist(), strict=True):
            instead = -2
            if rival is not None:
                instead = int(self._numbers([rival.text or ""], boxes_of([rival]))[0])
            self.examples.kept.append((row.likelihood.named, row.likelihood.located, number, instead))

    def added(self, rows: Sequence[Row]) -> None:
        numbers = self._numbers([row.text or "" for row in rows], boxes_of(rows))
        for row, number in zip(rows, numbers.tolist(), strict=True):
            self.examples.added.append((self.settings.unscored if row.score is None else row.score, number))

    def _numbers(self, texts: Sequence[str], boxes: Floats) -> NDArray[np.int64]:
        best = best_truths(self.kind, texts, boxes, self.truth, self.settings.names)
        # `truths` counts the images before this one.
        return np.where(best == _NONE, _NONE, best + self.examples.truths)
