"""How PyTorch calculates while one of the scenes' toy models is trained on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def training_arithmetic(threads: int | None) -> Iterator[None]:
    """So many threads (None: as many as there were) and no denormal numbers, until the block ends."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)  # denormal numbers slow training on a CPU several times
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
