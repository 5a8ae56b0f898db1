"""What is set before a GPU is used. The switches are there without a GPU too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

from specialists.gpu_arithmetic import for_training, without_plans


@pytest.fixture
def as_before() -> Iterator[None]:
    import torch

    plans, precision = torch.backends.cuda.cudnn_sdp_enabled(), torch.get_float32_matmul_precision()
    yield
    torch.backends.cuda.enable_cudnn_sdp(plans)
    torch.set_float32_matmul_precision(precision)


@pytest.mark.usefixtures("as_before")
def test_no_plan_is_made_for_each_shape_and_other_kernels_stay() -> None:
    import torch

    torch.backends.cuda.enable_cudnn_sdp(True)
    without_plans()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.usefixtures("as_before")
def test_a_training_multiplies_faster_too() -> None:
    import torch

    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.set_float32_matmul_precision("highest")
    for_training()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.get_float32_matmul_precision() == "high"
