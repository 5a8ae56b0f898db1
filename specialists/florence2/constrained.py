"""Answers that cannot be malformed: which tokens may follow what was written, under a task's grammar.

An answer under these rules is read by `grammar.parse` without any rest: a label has words, and a place after it; a
box has four coordinates and an area, a quad eight, a polygon three points or more and an even number of
coordinates; what is begun is finished before the limit of tokens, and the end is written. Texts are left alone:
any tokens are one, and the released checkpoints echo a region behind its text, which the parser leaves out.

What may follow is worked out from the tokens alone, for all rows at once. Greedy decoding only masks the logits of
rows whose likeliest token is forbidden, since masking changes no other row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from specialists.florence2.grammar import CLOSE, OPEN, SEP, TEXT, Vocabulary
from specialists.florence2.locations import BINS
from specialists.florence2.prompts import Grammar

if TYPE_CHECKING:
    import torch

_NOTHING, _BLANK, _WORD, _LOCATION, _SEP, _OPEN, _CLOSE, _END = range(8)
"""Classes of tokens. A blank has no visible character: a label of blanks alone would be none."""

_FREE, _BOXES, _LABELLED_BOXES, _QUADS, _POLYGONS, _BOXES_OR_POLYGONS = range(6)
_RULES = {
    Grammar.TEXT: _FREE, Grammar.BOXES: _BOXES, Grammar.LABELLED_BOXES: _LABELLED_BOXES, Grammar.LABELLED_QUADS: _QUADS,
    Grammar.POLYGONS: _POLYGONS, Grammar.LABELLED_BOXES_OR_POLYGONS: _BOXES_OR_POLYGONS,
}  # fmt: skip

_BOX, _QUAD, _POLYGON = 4, 8, 6
"""Coordinates that a shape has, a polygon at least."""


@dataclass(frozen=True, slots=True, eq=False)
class _Allowed:
    """Of each row the classes of tokens that may come next, (rows, 8), and of coordinates the least bin, (rows,), and
    one that is excluded, (rows,)."""

    classes: torch.Tensor
    least: torch.Tensor
    excluded: torch.Tensor


class Constraint:
    """The rules of one tokenizer, on one device; `width` is the number of a model's logits."""

    def __init__(self, vocabulary: Vocabulary, begin: int, end: int, width: int, device: Any) -> None:
        import torch

        meaning = np.full(width, -2, dtype=np.int64)
        known = min(width, len(vocabulary.meaning))
        meaning[:known] = vocabulary.meaning[:known]
        classes = np.full(width, _NOTHING)
        classes[meaning >= 0] = _LOCATION
        for mark, name in ((SEP, _SEP), (OPEN, _OPEN), (CLOSE, _CLOSE)):
            classes[meaning == mark] = name
        for token in np.flatnonzero(meaning == TEXT).tolist():
            classes[token] = _WORD if _visible(vocabulary.text([token])) else _BLANK
        classes[end] = _END
        self.classes = torch.from_numpy(classes).to(device)
        self.bins = torch.from_numpy(np.where(classes == _LOCATION, meaning, -1)).to(device)
        self.begin = begin

    def choose(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        grammars: torch.Tensor,
        left: torch.Tensor,
    ) -> torch.Tensor:
        """The likeliest token of each row where it is allowed, else the likeliest that is, (rows,).

        The arguments are those of `allowed`.
        """
        chosen = logits.argmax(1)
        allowed = self._allowed(tokens, lengths, grammars, left)
        kept = allowed.classes.gather(1, self.classes[chosen][:, None])[:, 0]
        bins = self.bins[chosen]
        kept &= (bins < 0) | ((bins >= allowed.least) & (bins != allowed.excluded))
        first = (lengths == 0) & (left > 1)  # the mark that begins an answer, and the end after it
        kept |= first & (chosen == self.begin)
        rows = (~kept).nonzero()[:, 0]
        if len(rows):
            classes = allowed.classes[rows]
            # A label that the model would end here gets its place, and not ever more words.
            place_only = classes[:, _LOCATION] & ~classes[:, _END]
            classes[:, [_BLANK, _WORD]] &= ~place_only[:, None]
            may = self._mask(_Allowed(classes, allowed.least[rows], allowed.excluded[rows]))
            may[:, self.begin] |= first[rows]
            chosen[rows] = logits[rows].masked_fill(~may, float("-inf")).argmax(1)
        return chosen

    def allowed(
        self, tokens: torch.Tensor, lengths: torch.Tensor, grammars: torch.Tensor, left: torch.Tensor
    ) -> torch.Tensor:
        """Which tokens may come next, (rows, vocabulary) bool.

        `tokens` (rows, longest) begin with `lengths` (rows,) of each row's own; `grammars` (rows,) are numbers by
        `rules`; `left` (rows,) tokens may still come.
        """
        may = self._mask(self._allowed(tokens, lengths, grammars, left))
        may[:, self.begin] |= (lengths == 0) & (left > 1)
        return may

    def _mask(self, allowed: _Allowed) -> torch.Tensor:
        may = allowed.classes[:, self.classes]
        fits = (self.bins >= allowed.least[:, None]) & (self.bins != allowed.excluded[:, None])
        return may & ((self.bins < 0) | fits)

    def _allowed(
        self, tokens: torch.Tensor, lengths: torch.Tensor, grammars: torch.Tensor, left: torch.Tensor
    ) -> _Allowed:
        import torch

        if not tokens.shape[1]:
            tokens = tokens.new_zeros((len(tokens), 1))
        at = torch.arange(tokens.shape[1], device=tokens.device)
        own = at < lengths[:, None]
        classes = self.classes[tokens].masked_fill(~own, _NOTHING)

        def last(of: torch.Tensor) -> torch.Tensor:
            """The place after the last token for which `of` holds, 0 where there is none."""
            places = torch.where(of & own, at + 1, 0)
            return torch.nn.functional.pad(places, (1, 0)).amax(1)

        located = classes == _LOCATION
        words = (classes == _WORD) | (classes == _BLANK)
        run = lengths - last(~located)  # coordinates at the end
        before = lengths - run
        last_words, last_open, last_close = last(words), last(classes == _OPEN), last(classes == _CLOSE)
        after_words = (last_words == lengths) & (lengths > 0)
        named = after_words & (last(classes == _WORD) > last(~words))
        marked = last_open > last_words  # in the polygons of a label, or of the answer
        inside = last_open > last_close
        begins = last(classes != _NOTHING) == 0  # nothing yet but the mark that begins an answer
        closed = (last_close == lengths) & (lengths > 0)

        polygonal = (grammars == _POLYGONS) | ((grammars == _BOXES_OR_POLYGONS) & marked)
        size = torch.where(grammars == _QUADS, _QUAD, _BOX)
        place = torch.where(polygonal, run, run % size)
        # Least and greatest x and y of the coordinates at the end: a shape that is level has no area.
        bins, at_end = self.bins[tokens], own & (at >= before[:, None])
        level = [
            bins.masked_fill(~of, BINS).amin(1) >= bins.masked_fill(~of, -1).amax(1)
            for of in (at_end & ((at - before[:, None]) % 2 == axis) for axis in (0, 1))
        ]
        flat = level[0] | level[1]
        whole = torch.where(
            polygonal, (run >= _POLYGON) & (run % 2 == 0) & ~flat, (run > 0) & (run % size == 0)
        )
        labelled = (grammars == _LABELLED_BOXES) | (grammars == _QUADS) | (grammars == _BOXES_OR_POLYGONS)
        ends = 1 + (polygonal & inside).long()  # tokens to finish with: the end, and the mark that closes
        boundary = begins | (whole & ~(polygonal & inside)) | closed
        least_shape = torch.where(grammars == _QUADS, _QUAD, _BOX)

        may = torch.zeros((len(tokens), 8), dtype=torch.bool, device=tokens.device)
        may[:, _END] = boundary
        # A label: what is still to come after one more word is a place and the end, after a blank a word too.
        labels = labelled & (boundary | after_words)
        may[:, _WORD] = labels & (left >= 1 + least_shape + 1)
        may[:, _BLANK] = labels & (left >= torch.where(named, 1, 2) + least_shape + 1)
        starts_box = (
            torch.where(labelled, named | (whole & (grammars != _QUADS)), begins | whole) & ~polygonal
        )
        begun = ~polygonal & (run > 0) & ~whole
        may[:, _LOCATION] = begun | (starts_box & (left >= least_shape + 1))
        starts_polygon = polygonal & (run == 0) & (begins | (inside & (last_open == lengths)))
        after_sep = polygonal & (run == 0) & (before > 0) & (last(classes == _SEP) == lengths) & (lengths > 0)
        unfinished = polygonal & (run > 0) & ~whole
        more = polygonal & whole & (left >= 2 + ends)
        may[:, _LOCATION] |= after_sep | unfinished | more | (starts_polygon & (left >= _POLYGON + ends))
        may[:, _SEP] = polygonal & whole & (left >= 1 + _POLYGON + ends)
        opens = (grammars == _POLYGONS) & (begins | closed)
        opens |= (grammars == _BOXES_OR_POLYGONS) & (named | (closed & marked))
        may[:, _OPEN] = opens & (left >= 1 + _POLYGON + 2)
        may[:, _CLOSE] = polygonal & inside & whole
        may |= (grammars == _FREE)[:, None]

        # Coordinates that give the shape an area: the second corner of a box beyond its first; the last point of a
        # quad or polygon off the line that those before it may all lie on.
        def back(count: int) -> torch.Tensor:
            """The bin that was written `count` tokens ago, where there is one."""
            return self.bins[tokens.gather(1, (lengths - count).clamp(min=0)[:, None])[:, 0]]

        box = ~polygonal & (grammars != _QUADS)
        least = torch.where(box & (place >= 2), back(2) + 1, 0)
        # So that a second corner can lie beyond it, the first keeps off the last bin.
        excluded = torch.where(box & (place < 2), BINS - 1, -1)
        odd = place % 2 == 1
        # A polygon may go level while there are tokens for one more point.
        tight = left < torch.where(odd, 1, 2) + 2 + ends
        last_chance = torch.where(
            grammars == _QUADS, place >= _QUAD - 2, polygonal & (place >= _POLYGON - 2) & tight
        )
        excluded = torch.where(last_chance & torch.where(odd, level[1], level[0]), back(2), excluded)
        free = grammars == _FREE
        return _Allowed(may, least.masked_fill(free, 0), excluded.masked_fill(free, -1))


def rules(grammars: Sequence[Grammar], device: Any) -> torch.Tensor:
    """The numbers of grammars, as `Constraint` takes them."""
    import torch

    return torch.tensor([_RULES[grammar] for grammar in grammars], device=device)


def processor(constraint: Constraint, grammars: torch.Tensor, beams: int, limit: int) -> Any:
    """For the library's beam search: `generate(logits_processor=...)`; `grammars` are those of its prompts."""
    from transformers import LogitsProcessor, LogitsProcessorList

    of_beams = grammars.repeat_interleave(beams)

    class Constrained(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            written = input_ids[:, 1:]  # behind the token that the decoder starts with
            lengths = written.new_full((len(written),), written.shape[1])
            may = constraint.allowed(written, lengths, of_beams, limit - lengths)
            return scores.masked_fill(~may, float("-inf"))

    return LogitsProcessorList([Constrained()])


def _visible(text: str) -> bool:
    """Whether a label keeps something of a token, whatever stands around it (`grammar.clean_label`).

    A token of some bytes of a character shows as U+FFFD, and with others it may be a blank.
    """
    return any(not c.isspace() and c not in "<\ufffd" for c in text)
