"""What is switched off before a GPU is used. The switch is there without a GPU too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

from specialists.gpu_attention import without_plans


@pytest.fixture
def as_before() -> Iterator[None]:
    import torch

    before = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.usefixtures("as_before")
def test_no_plan_is_made_for_each_shape_and_other_kernels_stay() -> None:
    import torch

    torch.backends.cuda.enable_cudnn_sdp(True)
    without_plans()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()
