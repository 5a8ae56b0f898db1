"""Keys and values of a BART decoder's attention for a batch whose rows come and go, and one step over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_FIRST_COLUMNS = 64
"""Tokens that the cache has room for at first."""


class DecoderCache:
    """For each decoder layer the keys and values of the encoder's output and of the tokens so far.

    Each is (places * heads, positions, head width), so that one head's numbers lie together in memory and the
    first n places are a slice. All rows write a step's keys and values into the same column, whatever their own
    number of tokens: attention does not mind the order, and a row does not see the columns before its own first.

    `places` rows of at most `longest` encoder positions fit. Memory grows with the longest answer of those that
    stand in the batch at one time, not with their sum.
    """

    def __init__(self, decoder: Any, places: int, longest: int, like: torch.Tensor) -> None:
        import torch

        self.decoder = decoder
        first = decoder.layers[0].encoder_attn
        self.heads, self.width = first.num_heads, first.head_dim
        rows, layers = places * self.heads, range(len(decoder.layers))
        # Zeros, for what no row has written yet is multiplied by a weight of 0: it must be a number.
        self.keys = [like.new_zeros((rows, longest, self.width)) for _ in layers]
        self.values = [like.new_zeros((rows, longest, self.width)) for _ in layers]
        self.absent = like.new_zeros((rows, 1, longest))
        self.own_keys = [like.new_zeros((rows, _FIRST_COLUMNS, self.width)) for _ in layers]
        self.own_values = [like.new_zeros((rows, _FIRST_COLUMNS, self.width)) for _ in layers]
        self.own_absent = like.new_zeros((rows, 1, _FIRST_COLUMNS))
        self.column = 0
        # Half precision has too few digits for a sum of exponentials.
        self.exact = torch.promote_types(like.dtype, torch.float32)

    def admit(self, places: NDArray[np.int64], encoded: torch.Tensor, mask: torch.Tensor) -> None:
        """Let rows begin at `places`, which rise: an encoder's output (rows, positions, width), and its mask, 0 at
        padding."""
        rows, length, _ = encoded.shape
        runs = list(_runs(places))
        for i, layer in enumerate(self.decoder.layers):
            attention = layer.encoder_attn
            for cache, projection in ((self.keys[i], attention.k_proj), (self.values[i], attention.v_proj)):
                states = projection(encoded).view(rows, length, self.heads, self.width).transpose(1, 2)
                by_row = self._by_row(cache)
                # By slices: on a CPU an index for the rows takes some times longer.
                for row, place, count in runs:
                    by_row[place : place + count, :, :length] = states[row : row + count]
        seen = encoded.new_zeros(mask.shape).masked_fill(mask == 0, float("-inf"))[:, None, None]
        absent, own = self._by_row(self.absent), self._by_row(self.own_absent)
        for row, place, count in runs:
            absent[place : place + count] = float("-inf")
            absent[place : place + count, :, :, :length] = seen[row : row + count]
            own[place : place + count] = 0
            own[place : place + count, :, :, : self.column] = float("-inf")

    def move(self, places: torch.Tensor, to: torch.Tensor) -> None:
        """Copy rows into other rows' places."""
        caches = (*self.keys, *self.values, *self.own_keys, *self.own_values, self.absent, self.own_absent)
        for cache in caches:
            by_row = self._by_row(cache)
            by_row[to] = by_row[places]

    def _by_row(self, cache: torch.Tensor) -> torch.Tensor:
        return cache.view(-1, self.heads, *cache.shape[1:])

    def make_room(self, first: int) -> int:
        """Room for one more column. `first` is the earliest that a row still sees; its new number is returned."""
        columns = self.own_absent.shape[2]
        if self.column < columns:
            return first
        kept = columns - first
        larger = columns if kept <= columns // 2 else 2 * columns
        for caches in (self.own_keys, self.own_values):
            for i, cache in enumerate(caches):
                caches[i] = cache.new_zeros((cache.shape[0], larger, self.width))
                caches[i][:, :kept] = cache[:, first:]
        absent = self.own_absent
        self.own_absent = absent.new_zeros((absent.shape[0], 1, larger))
        self.own_absent[:, :, :kept] = absent[:, :, first:]
        self.column = kept
        return 0

    def step(self, tokens: torch.Tensor, positions: torch.Tensor, first: int) -> torch.Tensor:
        """The decoder's output, (rows, width), for one more token of each of the first rows.

        `positions` are the tokens' numbers in their rows. No row needs columns before `first`.
        """

        rows, column = len(tokens), self.column
        n = rows * self.heads
        absent, own_absent = self.absent[:n], self.own_absent[:n, :, first : column + 1]
        embedding = self.decoder.embed_positions
        hidden = self.decoder.embed_tokens(tokens) + embedding.weight[positions + embedding.offset]
        hidden = self.decoder.layernorm_embedding(hidden)
        for i, layer in enumerate(self.decoder.layers):
            own = layer.self_attn
            self.own_keys[i][:n, column] = own.k_proj(hidden).view(n, -1)
            self.own_values[i][:n, column] = own.v_proj(hidden).view(n, -1)
            keys = self.own_keys[i][:n, first : column + 1]
            values = self.own_values[i][:n, first : column + 1]
            hidden = layer.self_attn_layer_norm(hidden + self._heard(own, hidden, keys, values, own_absent))
            across = layer.encoder_attn
            heard = self._heard(across, hidden, self.keys[i][:n], self.values[i][:n], absent)
            hidden = layer.encoder_attn_layer_norm(hidden + heard)
            inner = layer.fc2(layer.activation_fn(layer.fc1(hidden)))
            hidden = layer.final_layer_norm(hidden + inner)
        self.column += 1
        output: torch.Tensor = hidden
        return output

    def _heard(
        self,
        attention: Any,
        hidden: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        absent: torch.Tensor,
    ) -> torch.Tensor:
        import torch

        query = attention.q_proj(hidden).view(len(keys), 1, self.width)
        weights = torch.baddbmm(absent, query, keys.transpose(1, 2), alpha=attention.scaling)
        weights = weights.softmax(-1, dtype=self.exact).to(values.dtype)
        heard: torch.Tensor = attention.out_proj(torch.bmm(weights, values).view(len(hidden), -1))
        return heard


def _runs(places: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Runs of places that follow one another: the index of the first in `places`, the first, how many."""
    starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    for start, stop in zip(starts, np.append(starts[1:], len(places)), strict=True):
        yield int(start), int(places[start]), int(stop - start)
