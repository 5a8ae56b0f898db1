"""What teaches a small Florence-2 where things are: losses that exist in training alone.

A bin far from the right one is as wrong to plain cross-entropy as its neighbour. `SoftLocations` says
otherwise: the target of a location token is a Gaussian over the bins around the true one. `DenseHead`
asks every image feature directly what lies under it, in which words it is described and where its box
ends; its boxes are read with the model's own location embeddings. Without either, a model of this size
learns to caption and to name, but hardly to locate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specialists.florence2.dense_targets import DenseTargets
from specialists.florence2.locations import BINS

if TYPE_CHECKING:
    import torch

_NOTHING_WEIGHT = 0.5  # most of a picture is background
_WORDS_WEIGHT, _BOX_WEIGHT = 0.3, 0.25


class SoftLocations:
    """Cross-entropy whose targets for location tokens are Gaussians of `spread` bins.

    `first` is the id of `<loc_0>`; `device` is where the losses are calculated. Near an end of the scale the Gaussian is cut off there and made to sum
    to one.
    """

    def __init__(self, first: int, spread: float = 12.0, device: Any = "cpu") -> None:
        import torch

        self.first = first
        at = torch.arange(BINS, dtype=torch.float32, device=device)
        self.targets = torch.softmax(-((at[:, None] - at[None]) ** 2) / (2 * spread**2), dim=1)
        """(bin, bin): a row is the target of one bin."""
        self._floor = -(self.targets * self.targets.clamp_min(1e-30).log()).sum(1)

    def token_losses(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses of text tokens and of location tokens, two vectors.

        `logits` is (tokens, vocabulary), `targets` (tokens,). The entropy of the Gaussian is taken off, so
        that a perfect answer has the loss 0.
        """
        import torch
        from torch.nn import functional

        log_p = torch.log_softmax(logits.float(), dim=1)
        located = (targets >= self.first) & (targets < self.first + BINS)
        text = functional.nll_loss(log_p[~located], targets[~located], reduction="none")
        bins = targets[located] - self.first
        log_q = log_p[located][:, self.first : self.first + BINS]
        return text, -(self.targets[bins] * log_q).sum(1) - self._floor[bins]

    def bin_losses(self, logits: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
        """The same for logits over the bins alone, (..., BINS), and bins (...)."""
        log_q = logits.float().log_softmax(-1)
        return -(self.targets[bins] * log_q).sum(-1) - self._floor[bins]


class DenseHead:
    """One linear layer on image features (n, features, width): is anything there, its words, its box."""

    def __init__(self, width: int, words: int) -> None:
        import torch

        self.words = words
        self.layer = torch.nn.Linear(width, 1 + words + 4 * width)
        with torch.no_grad():
            self.layer.bias[: 1 + words] = -3.0  # most words describe none of most things

    def loss(
        self,
        features: torch.Tensor,
        targets: DenseTargets,
        locations: torch.Tensor,
        soft: SoftLocations,
        counts: tuple[float, float] | None = None,
    ) -> tuple[torch.Tensor, float]:
        """The loss, and the mean distance in bins between the boxes' sides and what is said of them.

        `features` leave out the mean that the model puts first; `locations` are the embeddings of the
        location tokens, (BINS, width). The loss is a mean over features and one over those that something
        covers; `counts` are the numbers of both where these are part of a larger batch.
        """
        import torch
        from torch.nn import functional

        place = features.device
        said = self.layer(features)
        covered = torch.from_numpy(targets.covered).to(place)
        everything, something = counts or (float(targets.covered.size), float(targets.covered.sum()))
        there = said[..., 0].float()
        weight = torch.where(covered, 1.0, _NOTHING_WEIGHT)
        loss = functional.binary_cross_entropy_with_logits(
            there, covered.float(), weight, reduction="sum"
        ) / max(everything, 1.0)
        if not targets.covered.any():
            return loss, 0.0
        about = said[covered]
        words = torch.from_numpy(targets.words).to(place)[covered].float()
        named = functional.binary_cross_entropy_with_logits(
            about[:, 1 : 1 + self.words].float(), words, reduction="none"
        )
        asked = about[:, 1 + self.words :].reshape(len(about), 4, -1)
        logits = asked @ locations.T
        bins = torch.from_numpy(targets.boxes).to(place)[covered]
        sides = soft.bin_losses(logits, bins)
        with torch.no_grad():
            distance = (logits.argmax(-1) - bins).abs().float().mean().item()
        taught = _WORDS_WEIGHT * named.sum() + _BOX_WEIGHT * sides.sum()
        return loss + taught / something, distance
