"""The loss of one batch: what is said of its pictures, and what a dense head is asked about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from specialists.florence2.locating import DenseHead, SoftLocations
from specialists.florence2.training.answers import alike, token_losses, told
from specialists.florence2.training.batch import Batch

if TYPE_CHECKING:
    import torch

    from specialists.florence2.shared_steps import Team
    from specialists.florence2.student import Student
    from specialists.florence2.training.network import Network

_PROMPTS_OF_A_GROUP, _GROUPS = 12, 8
"""Prompts are answered in groups of like length: about so many to a group, and so many groups at most."""


class Forward:
    """A network and what teaches it. `words` is the number of words of the dense head, None for plain losses."""

    def __init__(self, network: Network, words: int | None, device: torch.device, settings: Student) -> None:
        import torch

        self.network, self.device = network, device
        self.checkpointing = settings.checkpointing
        self.head: DenseHead | None = None
        self.soft: SoftLocations | None = None
        if words is not None:
            state = torch.random.get_rng_state()
            torch.manual_seed(settings.seed)
            self.head = DenseHead(int(network.model.config.text_config.d_model), words)
            torch.random.set_rng_state(state)
            self.head.layer.to(device)
            self.soft = SoftLocations(network.locations.start, device=device)
        images = network.processor.image_processor
        self.mean, self.std = (
            torch.tensor(v, device=device)[:, None, None] for v in (images.image_mean, images.image_std)
        )
        self.dtype = torch.float32

    @property
    def dense(self) -> bool:
        return self.head is not None

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        if self.head is not None:
            for name, parameter in self.head.layer.named_parameters():
                yield "head." + name, parameter

    def to(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        if self.head is not None:
            self.head.layer.to(dtype)

    def loss(self, batch: Batch, counts: Sequence[float], speaks: bool, sums: Sums) -> torch.Tensor:
        """This batch's part of the loss of a step with `counts` (`Loop._counts`); `sums` is told of it.

        Where the model does not yet speak only the dense head teaches.
        """
        import torch

        model = self.network.model
        pixels = torch.from_numpy(batch.pixels).to(self.device, non_blocking=True).float() / 255
        seen = ((pixels - self.mean) / self.std).to(self.dtype)
        features = model.get_image_features(seen).pooler_output
        table = model.get_input_embeddings().weight
        loss: torch.Tensor = features.sum() * 0.0
        if self.head is not None and self.soft is not None:
            locations = table[self.network.locations.start : self.network.locations.stop]
            dense, _ = self.head.loss(
                features[:, 1:], batch.dense, locations, self.soft, (counts[1], counts[2])
            )
            sums.add(dense=dense)
            loss = loss + dense
        if not speaks or not batch.prompts:
            return loss
        groups = min(_GROUPS, -(-len(batch.prompts) // _PROMPTS_OF_A_GROUP))
        for members in alike(batch.answers, batch.prompts, groups):
            hidden, targets = told(
                model,
                features[torch.tensor([batch.images[i] for i in members], device=self.device)],
                [batch.prompts[i] for i in members],
                [batch.answers[i] for i in members],
            )
            text, place = self._token_losses(hidden, targets, table)
            sums.add(text=text.sum(), texts=len(text), place=place.sum(), places=len(place))
            loss = loss + (text.sum() + place.sum()) / counts[0]
        return loss

    def _token_losses(
        self, hidden: torch.Tensor, targets: torch.Tensor, table: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        from torch.utils.checkpoint import checkpoint

        arguments = (hidden, targets, table, self.soft, self.network.locations)
        if not self.checkpointing:
            return token_losses(*arguments)
        # The logits of a large vocabulary are the largest thing that there is.
        found: Any = checkpoint(token_losses, *arguments, use_reentrant=False)
        return found[0], found[1]


class Sums:
    """Losses of a step, added up over its batches and processes."""

    _NAMES = ("text", "texts", "place", "places", "dense")

    def __init__(self, device: torch.device, whole: Team) -> None:
        import torch

        self.whole = whole
        self.values = torch.zeros(len(self._NAMES) + whole.size, dtype=torch.float64, device=device)

    def add(self, **values: Any) -> None:
        import torch

        for name, value in values.items():
            detached = value.detach() if isinstance(value, torch.Tensor) else value
            self.values[self._NAMES.index(name)] += detached

    def exchange(self) -> list[int]:
        """Add up over the processes; the ranks of those whose losses are no numbers."""
        import torch

        own = len(self._NAMES)
        self.values[own + self.whole.rank] = float(not bool(torch.isfinite(self.values[:own]).all()))
        self.whole.total([self.values])
        return [rank for rank, bad in enumerate(self.values[own:].tolist()) if bad]

    def means(self) -> dict[str, float]:
        """The loss, and its parts: per text token, per location token, and the dense head's."""
        text, texts, place, places, dense = self.values[: len(self._NAMES)].tolist()
        found = {"loss": (text + place) / max(texts + places, 1.0) + dense}
        if texts:
            found["text"] = text / texts
        if places:
            found["place"] = place / places
        if dense:
            found["dense"] = dense
        return found
