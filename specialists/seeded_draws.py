"""Sampling in which each row of a batch draws from a stream of numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class SeededDraws:
    """A step of `generate` after which its greedy choice is a draw from softmax(scores / temperature).

    `generate` itself draws for a whole batch from one stream, so that a text would depend on its neighbours. Here
    Gumbel noise is added to the scores instead: the largest sum is such a draw (Maddison et al.,
    arXiv 1411.0030, section 2). The noise is made on the CPU, so that it is the same on any device.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        """One seed per row, in 0..2^64 - 1; `temperature` above 0."""
        import torch

        self._temperature = temperature
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` (rows, vocabulary), log-probabilities or logits of the next token, with the noise added."""
        import torch

        waits = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=s) for s in self._streams])
        # Minus the logarithm of an exponential variable is a Gumbel variable.
        noise = -waits.clamp_min(torch.finfo(waits.dtype).tiny).log()
        return scores.float() / self._temperature + noise.to(scores.device)
