"""The weights that learn: in single precision beside those that the arithmetic uses, with optimizer and average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from specialists.florence2.shared_steps import Team

_DECAY, _LAST_SHARE, _CLIP = 0.05, 0.02, 1.0
"""Weight decay; what of a peak rate is left at the end; the largest norm of a gradient."""


class Learner:
    """What is multiplied may be in half precision; what is learnt adds up in single.

    `named` are the parameters that learn. Those that see (the vision tower, the projector, a dense head) rise
    to `vision_rate`, the others to `language_rate`. `averaged` is the decay of the average of weights.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, torch.nn.Parameter]],
        vision_rate: float,
        language_rate: float,
        averaged: float,
    ) -> None:
        import torch

        self.names = [name for name, _ in named]
        self.masters = [p.detach().float().clone() for _, p in named]
        self.average = [p.clone() for p in self.masters]
        self.averaged = averaged
        self.used: list[torch.nn.Parameter] = [p for _, p in named]
        groups = []
        for vision, peak in ((True, vision_rate), (False, language_rate)):
            for decay in (0.0, _DECAY):
                members = [
                    p
                    for name, p in zip(self.names, self.masters, strict=True)
                    if _sees(name) == vision and _decays(name, p) == (decay > 0)
                ]
                if members:
                    groups.append({"params": members, "weight_decay": decay, "peak": peak, "vision": vision})
        on_gpu = bool(self.masters) and self.masters[0].is_cuda
        self.optimizer = torch.optim.AdamW(
            groups, lr=vision_rate, betas=(0.9, 0.98), foreach=not on_gpu, fused=on_gpu
        )

    def use(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Calculate with these, the same parameters in another precision, from now on."""
        self.used = list(parameters)
        self.copy(self.masters)

    def copy(self, values: Iterable[torch.Tensor]) -> None:
        """Values of all weights into those that are used."""
        import torch

        with torch.no_grad():
            torch._foreach_copy_([*self.used], list(values))

    def gather(self, share: float = 1.0) -> None:
        """Add the used weights' gradients, times `share`, to what was gathered for this step."""
        for master, used in zip(self.masters, self.used, strict=True):
            if used.grad is None:
                continue
            found = used.grad.float()
            if share != 1.0:
                found = found * share
            master.grad = found if master.grad is None else master.grad + found
            used.grad = None

    def fill(self) -> None:
        """Weights without a gradient get one of zeros, for in another process they may have one."""
        import torch

        for master in self.masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)

    def step(self, number: int, whole: Team) -> bool:
        """Step `number`, counted from 0, with the sum of all processes' gradients; whether that sum was finite.

        One that is not teaches nothing.
        """
        import torch

        whole.total([master.grad for master in self.masters if master.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self.masters, _CLIP)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.copy(self.masters)
            # At first the average follows closely: it should not remember the random start.
            share = 1 - min(self.averaged, (1 + number) / (10 + number))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, [m.detach() for m in self.masters], share)
        for master in self.masters:
            master.grad = None
        return finite

    def set_rates(self, spent: float, warm_up: float, language_from: float = 0.0) -> float:
        """Warm-up for a share `warm_up` of the run, then half a cosine; at `spent` of the run.

        The language model's warm-up begins at `language_from`. Returns the first group's rate.
        """
        falling = _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * min(spent, 1.0))) / 2
        for group in self.optimizer.param_groups:
            since = spent if group["vision"] else spent - language_from
            group["lr"] = group["peak"] * falling * min(1.0, max(since, 0.0) / max(warm_up, 1e-9) + 1e-3)
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, for a working file."""
        return {"masters": self.masters, "average": self.average, "optimizer": self.optimizer.state_dict()}

    def load(self, saved: dict[str, Any]) -> None:
        """What `state` gave, of a learner of the same parameters."""
        for name, tensors in (("masters", self.masters), ("average", self.average)):
            for own, kept in zip(tensors, saved[name], strict=True):
                own.copy_(kept)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.copy(self.masters)


def _sees(name: str) -> bool:
    return name.startswith(("model.vision_tower", "model.multi_modal_projector", "head."))


def _decays(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim > 1 and not any(part in name for part in ("embed", "shared"))
