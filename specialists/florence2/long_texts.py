"""A text that is longer than a prompt may be, in parts that each fit one.

Florence-2's encoder has room for the image's tokens and some hundred more (1,024 positions, of which the released
checkpoints take 577 for the image). What is asked about the text is asked about each part, and where an answer's
phrases stand in the part says where they stand in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from data_engine.annotation import Annotation
from specialists.florence2.grammar import Found
from specialists.florence2.model import Answer, Florence2Model
from specialists.florence2.prompts import Task, prompt_text
from specialists.florence2.rows import rows
from specialists.said import Statement
from specialists.sentences import sentences

Span = tuple[int, int]

Part = tuple[Statement, int]
"""A statement that says only a part of its text, and where in the text that begins."""


def text_parts(model: Florence2Model, task: Task, text: Statement) -> list[Part]:
    """A text in as few parts as `task` can be asked about, in order; one, the text itself, where it fits.

    A part is a run of whole sentences. A sentence that does not fit is parted between words, a word within itself,
    so that nothing of the text is left out. Raises MissingPackageError where spaCy is needed and not there.
    """
    said = text.text or ""

    def fits(part: str) -> bool:
        # Room for the marks that begin and end a prompt.
        ids = model.tokenizer(task.prompt(prompt_text(part)), add_special_tokens=False)["input_ids"]
        return len(ids) + 2 <= model.positions - model.image_tokens

    if fits(said):
        return [(text, 0)]
    return [(replace(text, text=said[start:end]), start) for start, end in spans_that_fit(said, fits)]


def spans_that_fit(text: str, fits: Callable[[str], bool]) -> list[Span]:
    """Spans of `text`, in order, that each fit and together hold all of it but white space between them.

    `fits` must hold for every part of what it holds for. A single character that does not fit is a span too.
    """
    whole = [(start, end) for _, start, end in sentences([text])[0]]
    return list(_runs(text, whole, fits))


def part_rows(
    task: Task,
    found: Sequence[Found],
    answer: Answer,
    size: tuple[int, int],
    parts: Iterable[Part],
    earlier: Sequence[Annotation],
) -> list[Annotation]:
    """The rows that an answer about parts becomes, their spans counted in the whole text.

    `earlier` are the image's rows until now: a phrase that stands nowhere in its text, and so in no part of it, is
    left out where another part's answer had it in the same place.
    """
    made: list[Annotation] = []
    for part, start in parts:
        for row in rows(task, found, answer, size, [part]):
            if row.span is not None:
                row.span = (row.span[0] + start, row.span[1] + start)
            elif start and any(_same(row, other) for other in (*earlier, *made)):
                continue
            made.append(row)
    return made


def _same(row: Annotation, other: Annotation) -> bool:
    said = (other.kind, other.text, other.span, other.box)
    return row.parent == other.parent and said == (row.kind, row.text, row.span, row.box)


def _runs(text: str, units: Sequence[Span], fits: Callable[[str], bool]) -> Iterator[Span]:
    """Runs of units, each as long as fits; a unit that does not fit alone in runs of what it consists of."""
    first = 0
    while first < len(units):
        last = _last_that_fits(text, units, first, fits)
        start, end = units[first][0], units[max(last, first)][1]
        if last >= first or end - start == 1:
            yield start, end
        else:
            yield from _runs(text, _smaller(text, start, end), fits)
        first = max(last, first) + 1


def _last_that_fits(text: str, units: Sequence[Span], first: int, fits: Callable[[str], bool]) -> int:
    """The last unit of the longest run from `first` that fits; `first - 1` if not even that one does.

    In doubling steps and then by halving: of a long text only about twice what fits is ever looked at.
    """

    def good(last: int) -> bool:
        return fits(text[units[first][0] : units[last][1]])

    known, step = first - 1, 1
    while known + step < len(units) and good(known + step):
        known, step = known + step, step * 2
    beyond = min(known + step, len(units))
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if good(middle):
            known = middle
        else:
            beyond = middle
    return known


def _smaller(text: str, start: int, end: int) -> list[Span]:
    """The words of a sentence, or the characters of a word."""
    words: list[Span] = []
    at = start
    for word in text[start:end].split():
        at = text.index(word, at)
        words.append((at, at + len(word)))
        at += len(word)
    return words if len(words) > 1 else [(i, i + 1) for i in range(start, end)]
