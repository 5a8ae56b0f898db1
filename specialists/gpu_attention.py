"""Which of PyTorch's attentions is left out on a GPU."""

from __future__ import annotations


def without_plans() -> None:
    """Switch cuDNN's attention off, in this process.

    It makes a plan for every shape that it has not seen, and prompts and answers have new shapes all the time: on an
    H100 a new shape took 103 ms, forwards and backwards, where PyTorch's other kernels took 0.8
    (`benchmarks/attention.py`, docs/performance.md).
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
