"""One forward pass of a training: answers to many prompts about images that are encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from specialists.florence2.locating import SoftLocations

Ids = Sequence[Sequence[int]]

_PROMPT_TOKENS = 20
"""Of a usual prompt: what an answer costs besides its own tokens."""


def alike(answers: Ids, prompts: Ids, groups: int) -> list[list[int]]:
    """Numbers of prompts, in up to `groups` groups whose answers are about as long: little is then padding."""
    order = sorted(range(len(prompts)), key=lambda i: (len(answers[i]), len(prompts[i])))
    # A group of long answers is smaller: what counts is tokens.
    tokens = np.cumsum([len(answers[i]) + _PROMPT_TOKENS for i in order])
    cuts = np.searchsorted(tokens, tokens[-1] * np.arange(1, groups) / groups)
    return [part.tolist() for part in np.split(np.array(order), cuts) if len(part)]


def padded(rows: Ids, fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, longest) ids, and 1 where there is one."""
    import torch

    lengths = np.array([len(row) for row in rows])
    there = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(there.shape, fill, dtype=np.int64)
    ids[there] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return torch.from_numpy(ids), torch.from_numpy(there.astype(np.int64))


def told(model: Any, seen: torch.Tensor, prompts: Ids, answers: Ids) -> tuple[torch.Tensor, torch.Tensor]:
    """The decoder's output at each token of the answers, (tokens, width), and the tokens, (tokens,).

    `seen` (prompts, features, width) holds the features of each prompt's image. What is padding is left out
    of both.
    """
    import torch

    config = model.config.text_config
    language = model.model.language_model
    asked_ids, asked = (t.to(seen.device) for t in padded(prompts, config.pad_token_id))
    answer_ids = padded(answers, -100)[0].to(seen.device)
    embeds = torch.cat([seen, model.get_input_embeddings()(asked_ids)], dim=1)
    mask = torch.cat([torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device), asked], dim=1)
    encoded = language.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state
    # What comes before an answer's first token is the decoder's start token, as when it is generated.
    begun = torch.full((len(answers), 1), config.decoder_start_token_id, device=seen.device)
    inputs = torch.cat([begun, answer_ids[:, :-1]], dim=1)
    hidden = language.decoder(
        input_ids=inputs.masked_fill(inputs == -100, config.pad_token_id),
        encoder_hidden_states=encoded,
        encoder_attention_mask=mask,
        use_cache=False,
    ).last_hidden_state
    there = answer_ids != -100
    return hidden[there], answer_ids[there]


def logits(hidden: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(tokens, vocabulary) float32. On a CPU the product itself is in single precision, on a GPU in the
    weights' own, which for a large vocabulary is much of a step."""
    if hidden.device.type == "cpu":
        return hidden.float() @ table.float().T
    return (hidden @ table.T).float()


def hard_losses(
    logits: torch.Tensor, targets: torch.Tensor, locations: range
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain cross-entropy: of text tokens and of location tokens, two vectors, as `SoftLocations` has them."""
    from torch.nn import functional

    losses = functional.cross_entropy(logits, targets, reduction="none")
    located = (targets >= locations.start) & (targets < locations.stop)
    return losses[~located], losses[located]


def token_losses(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    table: torch.Tensor,
    soft: SoftLocations | None,
    locations: range,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of text tokens and of location tokens: soft ones where there are `soft` targets."""
    scores = logits(hidden, table)
    if soft is not None:
        return soft.token_losses(scores, targets)
    return hard_losses(scores, targets, locations)
