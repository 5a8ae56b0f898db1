"""Greedy decoding of a Florence-2 (a BART decoder) without what `generate` does around it at every step.

The tokens are those of `generate(num_beams=1)`: the same modules on the same numbers. What differs:

- Keys and values lie as attention reads them (`decoder_cache`). The library keeps them as views across heads,
  which a step then reads with a stride.
- A row that has ended leaves the batch, and another prompt takes its place. `generate` carries it on until the
  longest row ends.
- The log-probability of each token falls off on the way, so no second pass over the answer is needed.

Attention is written out, which sums in another order than the library's kernels: where two tokens' logits lie
within rounding of each other (some 1e-5 in float32), the two may choose differently, as two batch sizes may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from specialists.florence2.decoder_cache import DecoderCache

if TYPE_CHECKING:
    import torch

_SHARE = 8
"""Ended rows stay in the batch until one place in so many is free: to admit or to move rows has a cost too."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What the next tokens are chosen from, one row each.

    `logits` (rows, vocabulary), float32 or wider; `tokens` (rows, longest), the tokens of each row so far, of which
    the first `lengths` (rows,) are its own; `prompts` (rows,), which prompt it answers.
    """

    logits: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    prompts: torch.Tensor


Encode = Callable[[int, int], "tuple[torch.Tensor, torch.Tensor]"]
"""The encoder's output of prompts `first` to `last - 1`, (rows, positions, width), and its mask, 0 at padding."""

Decoded = tuple[list[int], NDArray[np.float32]]
"""A prompt's tokens, up to and with the end if it came within the limit, and the log-probability of each."""


def greedy(
    network: Any,
    encode: Encode,
    prompts: int,
    places: int,
    longest: int,
    limit: int,
    end: int,
    choose: Callable[[Step], torch.Tensor],
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> list[Decoded]:
    """At most `limit` tokens for each of `prompts`, of which at most `places` are in hand at one time.

    They are begun in their order: where those with the longest answers come first, the batch is full until
    nearly the end. `longest` is the most positions that `encode` gives. `choose` gives the next token of each row,
    (rows,); `score` the log-probability of (logits, tokens), (rows,).
    """
    import torch

    batch = _Batch(network, min(places, prompts), longest, limit)
    done: list[Decoded | None] = [None] * prompts
    begun = 0
    while begun < prompts or batch.going:
        free = batch.places - batch.going
        if begun < prompts and (not batch.going or free * _SHARE >= batch.places):
            count = min(free, prompts - begun)
            batch.collect(done)
            batch.admit(begun, *encode(begun, begun + count))
            begun += count
        elif begun == prompts and (len(batch.alive) - batch.going) * _SHARE >= len(batch.alive):
            batch.collect(done)
            batch.close_ranks()
        logits = network.lm_head(batch.hidden())
        step = batch.step(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        chosen = choose(step)
        batch.write(chosen, score(step.logits, chosen), end)
    batch.collect(done)
    return [answer for answer in done if answer is not None]


class _Batch:
    """The rows in hand. Rows that have ended stay at their places, unlistened to, until they are replaced."""

    def __init__(self, network: Any, places: int, longest: int, limit: int) -> None:
        import torch

        self.places, self.limit = places, limit
        weight = network.lm_head.weight
        self.cache = DecoderCache(network.model.language_model.decoder, places, longest, weight)
        self.start = network.config.text_config.decoder_start_token_id
        on = {"device": weight.device}
        # One column more than is used: rows that have ended go on writing behind their end.
        self.tokens = torch.zeros((places, limit + 1), dtype=torch.long, **on)
        self.log_probs = torch.zeros((places, limit + 1), dtype=torch.float32, **on)
        self.last = torch.zeros(places, dtype=torch.long, **on)
        self.lengths = torch.zeros(places, dtype=torch.long, **on)
        self.prompts = torch.zeros(places, dtype=torch.long, **on)
        # Of each place in use: does its row go on, has its answer been taken, its first column in the cache.
        self.alive = np.zeros(0, dtype=np.bool_)
        self.taken = np.zeros(0, dtype=np.bool_)
        self.first = np.zeros(0, dtype=np.int64)

    @property
    def going(self) -> int:
        return int(self.alive.sum())

    def admit(self, prompt: int, encoded: torch.Tensor, mask: torch.Tensor) -> None:
        """Begin prompts, from number `prompt` on, at places whose rows have ended and then at new ones."""
        import torch

        count = len(encoded)
        places = np.concatenate([np.flatnonzero(~self.alive), np.arange(len(self.alive), self.places)])[
            :count
        ]
        more = max(int(places.max()) + 1 - len(self.alive), 0)
        self.alive = np.append(self.alive, np.zeros(more, dtype=np.bool_))
        self.taken = np.append(self.taken, np.zeros(more, dtype=np.bool_))
        self.first = np.append(self.first, np.zeros(more, dtype=np.int64))
        self.alive[places], self.taken[places], self.first[places] = True, False, self.cache.column
        at = torch.from_numpy(places).to(self.last.device)
        self.last[at], self.lengths[at] = self.start, 0
        self.prompts[at] = torch.arange(prompt, prompt + count, device=at.device)
        self.cache.admit(places, encoded, mask)

    def hidden(self) -> torch.Tensor:
        rows = len(self.alive)
        earliest = int(self.first[self.alive].min())
        moved = earliest - self.cache.make_room(earliest)
        self.first -= moved
        positions = self.lengths[:rows].clamp(max=self.limit - 1)
        return self.cache.step(self.last[:rows], positions, earliest - moved)

    def step(self, logits: torch.Tensor) -> Step:
        rows = len(self.alive)
        longest = int(self.cache.column - self.first[self.alive].min())
        # Rows that have ended may be longer than all that go on.
        lengths = self.lengths[:rows].clamp(max=longest)
        return Step(logits, self.tokens[:rows, :longest], lengths, self.prompts[:rows])

    def write(self, chosen: torch.Tensor, log_probs: torch.Tensor, end: int) -> None:
        import torch

        rows = len(self.alive)
        at = torch.arange(rows, device=chosen.device)
        lengths = self.lengths[:rows]
        self.tokens[at, lengths] = chosen
        self.log_probs[at, lengths] = log_probs.float()
        self.last[:rows] = chosen
        alive = torch.from_numpy(self.alive).to(chosen.device)
        lengths += alive
        self.alive = (alive & (chosen != end) & (lengths < self.limit)).cpu().numpy()

    def collect(self, done: list[Decoded | None]) -> None:
        """Take the answers of rows that have ended since it was last done."""
        import torch

        ended = np.flatnonzero(~self.alive & ~self.taken)
        self.taken[ended] = True
        at = torch.from_numpy(ended).to(self.last.device)
        parts = (self.prompts[at], self.lengths[at], self.tokens[at], self.log_probs[at])
        prompts, lengths, tokens, log_probs = (part.cpu().numpy() for part in parts)
        for row, prompt in enumerate(prompts.tolist()):
            length = lengths[row]
            done[prompt] = (tokens[row, :length].tolist(), log_probs[row, :length].copy())

    def close_ranks(self) -> None:
        """Rows that go on move into the places of those that have ended; there are no more places then."""
        import torch

        kept = self.going
        to = np.flatnonzero(~self.alive[:kept])
        rows = np.flatnonzero(self.alive[kept:]) + kept
        self.first[to] = self.first[rows]
        self.first = self.first[:kept]
        self.alive, self.taken = np.ones(kept, dtype=np.bool_), np.zeros(kept, dtype=np.bool_)
        self.places = kept
        if len(rows):
            at, source = (torch.from_numpy(part).to(self.last.device) for part in (to, rows))
            self.cache.move(source, at)
            for part in (self.tokens, self.log_probs, self.last, self.lengths, self.prompts):
                part[at] = part[source]
