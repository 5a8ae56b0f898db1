"""Several processes of one machine that take each step of a training together.

Each has the whole model and learns from pictures of its own; gradients are added up over PyTorch's gloo (or
NCCL, where Ray Train has started it), so that all make the same step and stay equal. The operations of so small a model are too short for
a second thread to help much; a second process sees as many scenes again.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


_AT_ONCE = 16 << 20
"""Numbers that are added up in one go: 64 MiB."""


class Team:
    """The processes of a training, seen from number `rank` of `size`. What they exchange lies on `device`."""

    def __init__(self, rank: int = 0, size: int = 1, device: Any = "cpu") -> None:
        self.rank, self.size, self.device = rank, size, device

    def agreed(self, value: float) -> float:
        """What the first process says: clocks differ, and all must stop at the same step."""
        if self.size == 1:
            return value
        import torch

        said = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(said, 0)
        return float(said.item())

    def total(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors of one type, of like shapes in all processes, by their sums over the processes."""
        if self.size == 1:
            return
        import torch

        for some in _batches(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            torch.distributed.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in some])
            torch._foreach_copy_(some, [p.view_as(t) for p, t in zip(parts, some, strict=True)])


def _batches(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    some: list[torch.Tensor] = []
    for tensor in tensors:
        some.append(tensor)
        if sum(one.numel() for one in some) >= _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


@contextlib.contextmanager
def team(size: int, work: Callable[..., None], *args: Any) -> Iterator[Team]:
    """The first process's place in a team of `size`; the others run `work(team, *args)` meanwhile.

    `work` and `args` are given to new processes, so `work` must be a function of a module. A process that
    dies makes the next step of the others fail with torch's own error.
    """
    if size == 1:
        yield Team()
        return
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        others: list[Any] = [
            spawn.Process(target=_join, args=(meeting, rank, size, work, args), daemon=True)
            for rank in range(1, size)
        ]
        for process in others:
            process.start()
        try:
            _meet(meeting, 0, size)
            yield Team(0, size)
            for process in others:
                process.join()
        finally:
            for process in others:
                process.terminate()
                process.join()
            _part()


def _join(meeting: str, rank: int, size: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    _meet(meeting, rank, size)
    try:
        work(Team(rank, size), *args)
    finally:
        _part()


def _meet(meeting: str, rank: int, size: int) -> None:
    import torch.distributed

    if sys.platform.startswith("linux"):
        # The machine's name need not resolve to an address where there is no network.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)


def _part() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
