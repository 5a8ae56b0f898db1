"""Answers that are begun already, gone on with by a few words each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from specialists.florence2.decoding import Step, greedy
from specialists.florence2.encoding import SharedEncoder
from specialists.florence2.model import Florence2Model

if TYPE_CHECKING:
    import torch

_IN_A_WORD = re.compile(r"[\w'’-]")


@dataclass(frozen=True, slots=True)
class Begun:
    """The number of an image, a prompt's tokens after the image's, the tokens that the answer begins with, its start
    among them, and how many words are wanted."""

    image: int
    prompt: tuple[int, ...]
    before: tuple[int, ...]
    words: int


def continued(
    model: Florence2Model, features: torch.Tensor, begun: Sequence[Begun], most: int, batch: int
) -> list[str]:
    """The words that the model writes greedily behind each beginning, as many as are wanted or fewer at its end.

    Empty where they take more than `most` tokens, or the decoder has no room. At most `batch` answers are worked on at
    one time. `features` are those of the images that are numbered.
    """
    import torch

    # Long ones first, so that the batch is full until nearly the end.
    order = sorted(range(len(begun)), key=lambda i: -len(begun[i].before))
    rows = [begun[i] for i in order if len(begun[i].before) + most < model.positions]
    if not rows:
        return [""] * len(begun)
    lengths = torch.tensor([len(row.before) for row in rows], device=model.device)
    forced = torch.zeros((len(rows), int(lengths.max()) + 1), dtype=torch.long, device=model.device)
    for place, row in enumerate(rows):
        forced[place, : len(row.before)] = torch.tensor(row.before)
    wanted = torch.tensor([row.words for row in rows], device=model.device)
    begins = _begins_a_word(model).to(model.device)
    end = model.tokenizer.eos_token_id

    def choose(step: Step) -> torch.Tensor:
        of, at = lengths[step.prompts], step.lengths
        chosen = step.logits.argmax(1)
        column = torch.arange(step.tokens.shape[1], device=at.device)
        own = (column > of[:, None]) & (column < at[:, None])
        count = 1 + (begins[step.tokens] & own).sum(1) + (begins[chosen] & (at > of)).long()
        over = (count > wanted[step.prompts]) | (at >= of + most)
        chosen = torch.where(over, end, chosen)
        prefix = forced[step.prompts].gather(1, at.clamp(max=forced.shape[1] - 1)[:, None])[:, 0]
        return torch.where(at < of, prefix, chosen)

    with torch.inference_mode():
        encoder = SharedEncoder(model.network, features, batch)

        def encode(first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
            some = rows[first:last]
            pad = model.tokenizer.pad_token_id
            return encoder([row.image for row in some], [row.prompt for row in some], pad)

        longest = model.image_tokens + max(len(row.prompt) for row in rows)
        limit = int(lengths.max()) + most + 1
        made = greedy(
            model.network, encode, len(rows), min(batch, len(rows)), longest, limit, end, choose, model.scores
        )
    found = {}
    for row, (ids, _) in zip(rows, made, strict=True):
        new = ids[len(row.before) :]
        whole = bool(new) and new[-1] == end and len(new) <= most
        words = model.tokenizer.decode(new[:-1]).strip() if whole else ""
        found[id(row)] = "" if "<" in words else words
    return [found.get(id(row), "") for row in begun]


@lru_cache(maxsize=1)  # an actor has one model, whose vocabulary may have 50,000 entries
def _begins_a_word(model: Florence2Model) -> torch.Tensor:
    """(entries,): whether what a token spells does not go on with a word before it."""
    import torch

    size = model.network.lm_head.out_features
    spelt = model.tokenizer.batch_decode([[i] for i in range(min(size, len(model.tokenizer)))])
    begins = [not (text and _IN_A_WORD.match(text)) for text in spelt]
    return torch.tensor(begins + [True] * (size - len(begins)))
