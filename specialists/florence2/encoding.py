"""The encoder over several prompts about the same images, whose first layer does the images' part once.

Each prompt goes through the encoder together with its image, and what comes out of the first layer depends on both.
But what goes into it does not: the image's tokens stand first, at the same positions, so their queries, keys and
values, and what they attend to among themselves, are the same for every prompt. A softmax over both parts follows
from the softmax over each and the logarithm of its sum. For the scenes' model, of one encoder layer, this is half
of the encoder; for the released ones, of 6 and 12 layers, a few hundredths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Attention of some queries to some keys: (..., queries, head width), and log sum exp, (..., queries, 1)."""

    heard: torch.Tensor
    weight: torch.Tensor


class SharedEncoder:
    """What the first layer makes of `images`, (images, image tokens, width), and the encoder's output of prompts.

    `at_once` images are worked on together. Holds some five times the memory of the features.
    """

    def __init__(self, network: Any, images: torch.Tensor, at_once: int) -> None:
        import torch

        self.encoder = network.model.language_model.encoder
        self.embed = network.get_input_embeddings()
        self.layer = self.encoder.layers[0]
        self.heads, self.scaling = self.layer.self_attn.num_heads, self.layer.self_attn.scaling
        self.exact = torch.promote_types(images.dtype, torch.float32)
        self.tokens = images.shape[1]
        made: list[tuple[torch.Tensor, ...]] = []
        for start in range(0, len(images), at_once):
            some = images[start : start + at_once]
            hidden = self._positioned(some, 0)
            query, key, value = self._projected(hidden)
            part = self._attended(query, key, value)
            made.append((hidden, query, key, value, part.heard, part.weight))
        self.images = tuple(torch.cat(parts) for parts in zip(*made, strict=True))

    def __call__(
        self, images: Sequence[int], prompts: Sequence[Sequence[int]], pad: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output, (prompts, positions, width), and its mask, 0 at padding; `images` are each prompt's."""
        import torch
        from transformers.masking_utils import create_bidirectional_mask

        device = self.images[0].device
        ids = torch.full((len(prompts), max(len(prompt) for prompt in prompts)), pad)
        mask = torch.zeros((len(prompts), self.tokens + ids.shape[1]), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            mask[row, : self.tokens + len(prompt)] = 1
        mask = mask.to(device)
        # Images that follow one another, as they do in most batches, are not copied.
        follow = list(images) == list(range(images[0], images[0] + len(images)))
        rows = slice(images[0], images[-1] + 1) if follow else torch.tensor(images, device=device)
        hidden = self._first_layer(rows, self.embed(ids.to(device)), mask)
        attention_mask = create_bidirectional_mask(
            config=self.encoder.config, inputs_embeds=hidden, attention_mask=mask
        )
        for layer in self.encoder.layers[1:]:
            hidden = layer(hidden, attention_mask)
        return hidden, mask

    def _first_layer(
        self, images: slice | torch.Tensor, words: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        import torch

        hidden, query, key, value, heard, weight = (part[images] for part in self.images)
        own = self._positioned(words.to(hidden.dtype), self.tokens)
        own_query, own_key, own_value = self._projected(own)
        absent = own.new_zeros(words.shape[:2]).masked_fill(mask[:, self.tokens :] == 0, float("-inf"))
        from_image = _joined(
            _Part(heard, weight), self._attended(query, own_key, own_value, absent[:, None, None])
        )
        from_words = _joined(
            self._attended(own_query, key, value),
            self._attended(own_query, own_key, own_value, absent[:, None, None]),
        )
        both = torch.cat([from_image, from_words], dim=2).to(hidden.dtype).transpose(1, 2).flatten(2)
        hidden = torch.cat([hidden, own], dim=1)
        hidden = self.layer.self_attn_layer_norm(hidden + self.layer.self_attn.out_proj(both))
        inner = self.layer.fc2(self.layer.activation_fn(self.layer.fc1(hidden)))
        hidden = self.layer.final_layer_norm(hidden + inner)
        if hidden.dtype == torch.float16:  # as the library's layer does
            largest = torch.finfo(hidden.dtype).max - 1000
            hidden = hidden.clamp(-largest, largest)
        output: torch.Tensor = hidden
        return output

    def _positioned(self, states: torch.Tensor, first: int) -> torch.Tensor:
        table = self.encoder.embed_positions
        positions = table.weight[first + table.offset : first + table.offset + states.shape[1]]
        normed: torch.Tensor = self.encoder.layernorm_embedding(states + positions)
        return normed

    def _projected(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        """Queries, keys and values, (rows, heads, tokens, head width)."""
        attention = self.layer.self_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            yield projection(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2).contiguous()

    def _attended(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, absent: torch.Tensor | None = None
    ) -> _Part:
        weights = (query @ key.transpose(2, 3)).to(self.exact).mul_(self.scaling)
        if absent is not None:
            weights += absent
        top = weights.amax(-1, keepdim=True)
        weights = weights.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        return _Part((weights.to(value.dtype) @ value).to(self.exact) / total, top + total.log())


def _joined(a: _Part, b: _Part) -> torch.Tensor:
    """Attention to the keys of both."""
    import torch

    share = torch.sigmoid(a.weight - b.weight)
    return b.heard.lerp(a.heard, share)
