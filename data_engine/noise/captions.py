"""Errors of captions, and what becomes of their phrases: each goes on standing in its span, or goes.

A caption is a text of granularity brief, detailed or more_detailed that is not blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_engine.noise.edits import Edit, edited, exchanged, moved_span
from data_engine.noise.model import CAPTION_CHANGES, REANCHORED, NoiseModel
from data_engine.noise.page import Line, Page
from data_engine.noise.words import AFTER, BEFORE, EMPTY, FILE_NAMES, KEYWORDS, SHOP

GRANULARITIES = ("brief", "detailed", "more_detailed")

LEAST_WORDS_TRUNCATED = 4
LEAST_WORDS_REPEATED = 3

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_LIKE = 12
"""Among how many donors of about the same length a swapped caption is drawn."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A new text; `edits` lead to it from the old one, None where it has nothing to do with it."""

    text: str
    edits: Sequence[Edit] | None


def is_caption(line: Line) -> bool:
    row = line.row
    return row.kind == "text" and row.granularity in GRANULARITIES and bool((row.text or "").strip())


def rewrite(page: Page, model: NoiseModel) -> None:
    """Give captions the errors that the rates ask for, one after the other."""
    for caption in filter(is_caption, page.lines()):
        for change in CAPTION_CHANGES:
            if page.chance(change, caption) >= model.rate(change):
                continue
            rewriting = _MAKERS[change](caption, model, page.rng(change, caption))
            if rewriting is not None and rewriting.text != caption.row.text:
                _put(page, caption, rewriting, change)


def _put(page: Page, caption: Line, rewriting: Rewriting, change: str) -> None:
    old = caption.row.text or ""
    caption.row.text = rewriting.text
    page.touch(caption, change)
    for phrase in caption.children:
        if phrase.gone or phrase.row.kind != "phrase":
            continue
        span = phrase.row.span
        # A phrase that does not even spell what the true caption says there cannot be found again.
        if rewriting.edits is None or span is None or old[slice(*span)] != phrase.row.text:
            page.remove(phrase, change)
            continue
        moved = moved_span(span, rewriting.edits)
        if moved is None:
            page.remove(phrase, change)
            continue
        said = rewriting.text[slice(*moved)]
        if said != phrase.row.text:
            phrase.row.text, phrase.row.span = said, moved
            page.touch(phrase, change)
        elif moved != span:
            phrase.row.span = moved
            phrase.changes.append(REANCHORED)


def swapped(caption: Line, model: NoiseModel, rng: np.random.Generator) -> Rewriting | None:
    """A donor's caption of about the same number of words."""
    old = caption.row.text or ""
    others = [text for text in model.donors if text != old]
    if not others:
        return None
    words = len(old.split())
    nearest = sorted(others, key=lambda text: (abs(len(text.split()) - words), text))[:_LIKE]
    return Rewriting(nearest[int(rng.integers(len(nearest)))], None)


def alt_text(caption: Line, model: NoiseModel, rng: np.random.Generator) -> Rewriting:
    """What a web page's author wrote for a machine: a file's name, an offer, a list of keywords."""
    old = caption.row.text or ""
    words = list(dict.fromkeys(w for w in _WORD.findall(old.lower()) if w not in EMPTY))
    form = int(rng.integers(3)) if words else 0
    if form == 0:
        name = FILE_NAMES[int(rng.integers(len(FILE_NAMES)))]
        text = name.format(int(rng.integers(1, 10_000)))
    elif form == 1:
        text = SHOP[int(rng.integers(len(SHOP)))].format(_subject(caption) or " ".join(words[:3]))
    else:
        keywords = [*(words[i] for i in rng.permutation(len(words))[:6])]
        keywords += [KEYWORDS[i] for i in rng.permutation(len(KEYWORDS))[: int(rng.integers(1, 4))]]
        text = ", ".join(keywords)
    return Rewriting(text, None)


def attribute_flipped(caption: Line, model: NoiseModel, rng: np.random.Generator) -> Rewriting | None:
    """One word of colour, size or number is exchanged for another of its category. None without such a word."""
    text = caption.row.text or ""
    found = attributes_in(text, model)
    if not found:
        return None
    start, end, category = found[int(rng.integers(len(found)))]
    others = [word for word in model.attributes[category] if word.lower() != text[start:end].lower()]
    edits = exchanged(text, start, end, others[int(rng.integers(len(others)))])
    return Rewriting(edited(text, edits), edits)


def attributes_in(text: str, model: NoiseModel) -> list[tuple[int, int, str]]:
    """Each word of an attribute as (start, end, category)."""
    found = []
    for category, words in model.attributes.items():
        longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        for match in re.finditer(rf"(?<!\w)(?:{longest_first})(?!\w)", text, re.IGNORECASE):
            found.append((match.start(), match.end(), category))
    return sorted(found)


def truncated(caption: Line, model: NoiseModel, rng: np.random.Generator) -> Rewriting | None:
    """The end is missing, from the middle of a sentence on. None for fewer than `LEAST_WORDS_TRUNCATED` words."""
    text = caption.row.text or ""
    words = list(_WORD.finditer(text))
    if len(words) < LEAST_WORDS_TRUNCATED:
        return None
    # What follows the last word kept is no full stop: it would end a sentence.
    ends = [a.end() for a in words[len(words) // 4 : -1] if text[a.end()].isspace()]
    ends = ends or [words[len(words) // 2 - 1].end()]
    cut = ends[int(rng.integers(len(ends)))]
    edits = [Edit(cut, len(text), "")]
    return Rewriting(edited(text, edits), edits)


def repeated(caption: Line, model: NoiseModel, rng: np.random.Generator) -> Rewriting | None:
    """A model stuck in a loop: from some word on it says the last words again and again."""
    text = caption.row.text or ""
    words = list(_WORD.finditer(text))
    if len(words) < LEAST_WORDS_REPEATED:
        return None
    last = int(rng.integers(max(2, len(words) // 2), len(words)))
    first = max(0, last + 1 - int(rng.integers(2, 7)))
    stop = words[last].end()
    loop = text[words[first].start() : stop]
    edits = [Edit(stop, len(text), f" {loop}" * int(rng.integers(3, 9)))]
    return Rewriting(edited(text, edits), edits)


def boilerplate(caption: Line, model: NoiseModel, rng: np.random.Generator) -> Rewriting:
    """A line that stands under every picture of a site, before or after the caption."""
    text = caption.row.text or ""
    if rng.random() < 0.5:
        edits = [Edit(0, 0, BEFORE[int(rng.integers(len(BEFORE)))])]
    else:
        edits = [Edit(len(text), len(text), AFTER[int(rng.integers(len(AFTER)))])]
    return Rewriting(edited(text, edits), edits)


def _subject(caption: Line) -> str:
    """The caption's first phrase without its article; empty where it has none."""
    phrases = [c.row for c in caption.children if not c.gone and c.row.kind == "phrase" and c.row.text]
    if not phrases:
        return ""
    first = min(phrases, key=lambda row: (row.span or (0, 0), row.text))
    return re.sub(r"^(an?|the)\s+", "", first.text or "", flags=re.IGNORECASE)


_MAKERS: dict[str, Callable[[Line, NoiseModel, np.random.Generator], Rewriting | None]] = {
    "swapped": swapped,
    "alt_text": alt_text,
    "attribute_flipped": attribute_flipped,
    "truncated": truncated,
    "repeated": repeated,
    "boilerplate": boilerplate,
}
