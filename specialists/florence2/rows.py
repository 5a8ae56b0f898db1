"""From what Florence-2's answer says to annotation rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from data_engine.annotation import Annotation
from specialists.florence2.grammar import Found, clean_label
from specialists.florence2.masks import encode
from specialists.florence2.model import Answer
from specialists.florence2.prompts import Grammar, Takes, Task
from specialists.florence2.spans import phrase_spans
from specialists.said import Statement

Box = tuple[float, float, float, float]


def rows(
    task: Task,
    found: Sequence[Found],
    answer: Answer,
    size: tuple[int, int],
    about: Sequence[Statement] = (),
    label: str | None = None,
) -> list[Annotation]:
    """The rows that one answer becomes.

    `about` are the statements that the prompt was made from (several where they say the same, so that
    one prompt served them all), `label` the recipe's own. Shapes without area, and whatever the answer
    says a second time, are left out. Every score is `Answer.score_of` what was found.
    """
    whole = [f for f in found if not f.rings or _area(f.box) > 0]
    if task.takes is Takes.TEXT:
        return [row for text in about for row in _phrases(whole, answer, text)]
    whole = list(_once(whole))
    if task.grammar is Grammar.POLYGONS:
        return list(_masks(whole, answer, size, about))
    if task.takes is Takes.REGION:
        return [
            Annotation(
                task.kind,
                clean_label(f.label),
                task.granularity,
                region.reference,
                box=region.box,
                score=answer.score_of(f),
            )
            for f in whole
            for region in about
        ]
    return [row for f in whole for row in _region(task, f, answer, size, label)]


def _once(found: Sequence[Found]) -> Iterator[Found]:
    """Without repetitions: a model that has lost its way writes one box until its limit."""
    seen = set()
    for f in found:
        said = (f.label.casefold(), f.shape, *(ring.tobytes() for ring in f.rings))
        if said not in seen:
            seen.add(said)
            yield f


def _area(box: Box) -> float:
    x0, y0, x1, y1 = box
    return max(x1 - x0, 0.0) * max(y1 - y0, 0.0)


def _region(
    task: Task, found: Found, answer: Answer, size: tuple[int, int], label: str | None
) -> Iterator[Annotation]:
    """A text of the image, or a region; a region that was drawn as polygons has its mask after it."""
    score = answer.score_of(found)
    if not found.rings:
        yield Annotation(task.kind, found.label, task.granularity, score=score)
        return
    text = found.label or None
    if label is not None and found.label.casefold() == clean_label(label).casefold():
        text = label
    quad = found.rings[0].reshape(-1).tolist() if found.shape == "quad" else None
    region = Annotation(task.kind, text, task.granularity, box=found.box, quad=quad, score=score)
    yield region
    if found.shape == "polygons":
        mask = encode(found.rings, size)
        if mask is not None:
            yield Annotation(task.kind, parent=region, box=found.box, mask=mask, score=score)


def _phrases(found: Sequence[Found], answer: Answer, text: Statement) -> Iterator[Annotation]:
    """One row per phrase in the text and box.

    A phrase is written as it stands in its text. One that is not in the text, which happens when the
    model rewords, is kept as the model wrote it and has no span.
    """
    seen = set()
    parent = text.text or ""
    items = [list(group) for _, group in groupby(found, key=lambda f: f.label_tokens)]
    spans = phrase_spans(parent, [group[0].label for group in items])
    for group, span in zip(items, spans, strict=True):
        for f in group:
            words = f.label if span is None else parent[span[0] : span[1]]
            if (span, words, f.box) in seen:
                continue
            seen.add((span, words, f.box))
            yield Annotation(
                "phrase",
                words,
                parent=text.reference,
                span=span,
                box=f.box,
                score=answer.score_of(f),
            )


def _masks(
    found: Sequence[Found], answer: Answer, size: tuple[int, int], about: Sequence[Statement]
) -> Iterator[Annotation]:
    """One mask per statement that it belongs to.

    A phrase with three boxes is three statements and one prompt: each polygon goes to the box that it
    overlaps most, apart for every text that the phrase stands in.
    """
    polygons: list[tuple[NDArray[np.float64], tuple[int, ...]]] = []
    for f in found:
        start = 0
        for ring in f.rings:
            polygons.append((ring, f.location_tokens[start : start + ring.size]))
            start += ring.size
    rivals: dict[str, list[Statement]] = {}
    for statement in about:
        rivals.setdefault(_owner(statement), []).append(statement)
    for statements in rivals.values():
        for i, statement in enumerate(statements):
            own = [p for p in polygons if _closest(p[0], statements, size) == i]
            mask = encode([ring for ring, _ in own], size)
            if mask is None:
                continue
            points = np.concatenate([ring for ring, _ in own])
            (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            yield Annotation(
                statement.kind,
                parent=statement.reference,
                box=(x0, y0, x1, y1),
                mask=mask,
                score=answer.score([token for _, tokens in own for token in tokens]),
            )


def _owner(statement: Statement) -> str:
    """What sets statements apart that share a prompt: phrases of one text are rivals, regions are not."""
    owner = statement.parent if statement.kind == "phrase" else statement.reference
    return owner if isinstance(owner, str) else str(id(owner))


def _closest(ring: NDArray[np.float64], statements: Sequence[Statement], size: tuple[int, int]) -> int:
    """Which statement's box a polygon's extent overlaps most; the smaller box if two hold it alike."""
    (x0, y0), (x1, y1) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()

    def fit(i: int) -> tuple[float, float]:
        box = statements[i].box or (0.0, 0.0, float(size[0]), float(size[1]))
        common = (max(x0, box[0]), max(y0, box[1]), min(x1, box[2]), min(y1, box[3]))
        inside = _area(common) if common[0] < common[2] and common[1] < common[3] else 0.0
        return inside, -_area(box)

    return max(range(len(statements)), key=fit)
