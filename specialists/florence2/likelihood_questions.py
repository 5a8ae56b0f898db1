"""What a Florence-2 is asked in order to judge statements: prompts, and the answers that would say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from specialists.florence2.grammar import clean_label
from specialists.florence2.locations import quantise, written
from specialists.florence2.long_texts import text_parts
from specialists.florence2.model import Florence2Model
from specialists.florence2.prompts import Task, prompt_text
from specialists.florence2.teacher_forcing import Asked
from specialists.said import Statement

TOLD, NAMED, LOCATED = "told", "named", "located"

CAPTIONS = {"brief": "CAPTION", "detailed": "DETAILED_CAPTION", "more_detailed": "MORE_DETAILED_CAPTION"}
NAMES = {"phrase": "REGION_TO_CATEGORY", "brief": "REGION_TO_DESCRIPTION"}
BOXES, PHRASES = "OPEN_VOCABULARY_DETECTION", "CAPTION_TO_PHRASE_GROUNDING"
"""Which task judges what: texts and names by granularity, boxes of regions, boxes of phrases."""

Size = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The tokens `first` to `last - 1` of an answer are what `about` says, by which measure."""

    about: Statement
    measure: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    asked: Asked
    parts: tuple[Part, ...]


def questions(
    model: Florence2Model, tasks: Mapping[str, Task], image: int, size: Size, known: Sequence[Statement]
) -> Iterator[Question]:
    """All about one image's statements that `tasks` allow. `size` is its (width, height)."""
    said = [s for s in known if not s.masked and clean_label(s.text or "")]
    regions = [s for s in said if s.kind == "region" and s.box is not None and s.granularity in NAMES]
    for statement in said:
        task = tasks.get(CAPTIONS.get(statement.granularity or "", "")) if statement.describes else None
        if task is not None:
            yield _text(model, task, image, "", statement, TOLD)
    for statement in regions:
        task = tasks.get(NAMES[statement.granularity or ""])
        if task is not None:
            yield _text(model, task, image, written(statement.box or (), size), statement, NAMED)
    task = tasks.get(BOXES)
    if task is not None:
        things = [(clean_label(s.text or ""), s) for s in regions if s.parent is None]
        things.sort(key=lambda thing: (thing[0], _larger_first(thing[1])))
        for label, group in groupby(things, key=lambda thing: thing[0]):
            yield from _located(model, task, image, label, list(group), size)
    task = tasks.get(PHRASES)
    if task is not None:
        phrases = [s for s in said if s.kind == "phrase" and s.box is not None]
        for text in (s for s in said if s.describes):
            own = [s for s in phrases if s.parent == text.reference]
            yield from _grounded(model, task, image, text, own, size)


def _larger_first(statement: Statement) -> tuple[float, ...]:
    x0, y0, x1, y1 = statement.box or (0.0, 0.0, 0.0, 0.0)
    return (-(x1 - x0) * (y1 - y0), x0, y0, x1, y1)


def _text(
    model: Florence2Model, task: Task, image: int, said: str, statement: Statement, measure: str
) -> Question:
    """A text as the whole answer, with its end: a text that should go on is unlikely to end."""
    words = model.words(clean_label(statement.text or ""))[: model.positions - 2]
    answer = (model.tokenizer.bos_token_id, *words, model.tokenizer.eos_token_id)
    asked = Asked(image, tuple(model.prompt_ids(task, said)), answer)
    return Question(asked, (Part(statement, measure, 1, len(answer)),))


def _grounded(
    model: Florence2Model, task: Task, image: int, text: Statement, phrases: Sequence[Statement], size: Size
) -> Iterator[Question]:
    """The phrases of a text in the order in which they stand in it; of a long text, part by part."""
    left = list(phrases)
    for part, _ in text_parts(model, task, text) if left else ():
        inside = [s for s in left if (s.text or "") in (part.text or "")]
        left = [s for s in left if s not in inside]
        place = {id(s): (part.text or "").index(s.text or "") for s in inside}
        inside.sort(key=lambda s: (place[id(s)], clean_label(s.text or ""), _larger_first(s)))
        said = prompt_text(part.text or "")
        yield from _located(model, task, image, said, [(clean_label(s.text or ""), s) for s in inside], size)


def _located(
    model: Florence2Model,
    task: Task,
    image: int,
    said: str,
    labelled: Sequence[tuple[str, Statement]],
    size: Size,
) -> Iterator[Question]:
    """`label box box ... label box ...` as one answer, or several where it does not fit the decoder's positions."""
    prompt = tuple(model.prompt_ids(task, said))
    ids: list[int] = [model.tokenizer.bos_token_id]
    parts: list[Part] = []
    before = None
    for label, statement in labelled:
        box = [model.scores.location_ids[v] for v in quantise(statement.box or (), size).tolist()]
        words = [] if label == before else model.words(label)
        if parts and len(ids) + len(words) + len(box) > model.positions:
            yield Question(Asked(image, prompt, tuple(ids)), tuple(parts))
            ids, parts, words = ids[:1], [], model.words(label)
        if 1 + len(words) + len(box) > model.positions:
            continue
        ids += words
        parts.append(Part(statement, LOCATED, len(ids), len(ids) + len(box)))
        ids += box
        before = label
    if parts:
        yield Question(Asked(image, prompt, tuple(ids)), tuple(parts))
