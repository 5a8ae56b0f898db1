"""How PyTorch calculates on a GPU, set for the whole process."""

from __future__ import annotations


def without_plans() -> None:
    """Switch cuDNN's attention off.

    It makes a plan for every shape that it has not seen, and prompts and answers have new shapes all the time: on an
    H100 a new shape took 103 ms, forwards and backwards, where PyTorch's other kernels took 0.8
    (`benchmarks/attention.py`, docs/performance.md).
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def for_training() -> None:
    """`without_plans`, and products of float32 matrices in TF32: bfloat16 does most of the work anyway."""
    import torch

    without_plans()
    torch.set_float32_matmul_precision("high")
