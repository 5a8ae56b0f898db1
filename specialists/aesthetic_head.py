"""The head of an aesthetic predictor: linear layers over a CLIP's image feature, read from a file.

Published for features of length one:

- LAION-Aesthetics v1 (github.com/LAION-AI/aesthetic-predictor): one layer, of ViT-B/32 (512 numbers) or
  ViT-L/14 (768); `weight` (1, d) and `bias` (1).
- LAION-Aesthetics v2 (github.com/christophschuhmann/improved-aesthetic-predictor, the files whose names end
  in `linearMSE`): 768-1024-128-64-16-1 with dropout between; `layers.0.weight` (1024, 768) and so on.

Neither has activations. The file named `reluMSE` has them, and a file does not say so: it is not for this.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_engine.errors import ModelLoadError


def load_head(path: Path) -> list[tuple[Any, Any]]:
    """The layers of a head in their order: weight (out, in) and bias (out,) each, float32, on the CPU.

    Reads safetensors, and any other file as torch's `weights_only`. Raises ModelLoadError for a file that
    is not there or cannot be read, and for tensors that are no chain of linear layers down to one number.
    """
    if not path.is_file():
        raise ModelLoadError(f"there is no head {path}", "give the file of an aesthetic predictor as `head`")
    tensors = _tensors(path)
    names = sorted((name for name in tensors if name.endswith("weight")), key=_natural)
    layers = [(tensors.pop(name), tensors.pop(f"{name.removesuffix('weight')}bias", None)) for name in names]
    fit = all(
        weight.ndim == 2 and bias is not None and bias.shape == weight.shape[:1] for weight, bias in layers
    )
    chained = fit and all(a.shape[0] == b.shape[1] for (a, _), (b, _) in pairwise(layers))
    if tensors or not layers or not chained or layers[-1][0].shape[0] != 1:
        shapes = [list(weight.shape) for weight, _ in layers]
        others = f", and {min(tensors)!r} beside them" if tensors else ""
        raise ModelLoadError(
            f"{path} is no chain of linear layers down to one number: weights {shapes}{others}",
            "give the head of LAION-Aesthetics v1 or v2, or linear layers like those",
        )
    return [(weight.float(), bias.float()) for weight, bias in layers]


def apply_head(layers: list[tuple[Any, Any]], features: Any) -> Any:
    """One number for each of `features` (n, d): a tensor (n,)."""
    import torch

    for weight, bias in layers:
        features = torch.nn.functional.linear(features, weight, bias)
    return features[:, 0]


def _tensors(path: Path) -> dict[str, Any]:
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelLoadError(
            f"cannot load {path}: {reason}", "the file is damaged: fetch it again"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(t, torch.Tensor) for t in found.values()):
        raise ModelLoadError(
            f"{path} holds no tensors by name", "give a state dict, as the head is published"
        )
    return dict(found)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Layer 10 after layer 9."""
    return [
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)
    ]
