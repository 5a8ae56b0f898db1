"""The checkpoint that a training begins with, where it does not begin with random weights.

A model may go on at another resolution, as Florence-2 itself was trained: first at 384 pixels, then at
768 (section 5 of the paper). Its weights stay; the tables of the image's positions are stretched.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_engine.errors import RecipeError
from specialists.florence2.scratch import Dimensions

if TYPE_CHECKING:
    import torch

POSITIONS = "image_position_embed."
"""In the names of the tables of rows' and columns' positions."""


def read_tokenizer(start: Path) -> str:
    """The tokenizer of a checkpoint folder, as its definition in JSON. Raises RecipeError without one."""
    file = start / "tokenizer.json"
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{start} has no tokenizer.json to start from", "give the folder of a checkpoint"
        ) from error


def load_start(model: Any, start: Path, dimensions: Dimensions) -> None:
    """Give `model`, made with `dimensions`, the weights of the folder `start`.

    `start` is what an earlier training wrote, with its `training.json`. Raises RecipeError if it is not,
    or if its model has other dimensions than `side` and `window`.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        facts = json.loads((start / "training.json").read_text(encoding="utf-8"))
        earlier = Dimensions(**{k: _tuple(v) for k, v in facts["dimensions"].items()})
        weights = load_file(start / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise RecipeError(
            f"{start} is no checkpoint of a training: {error}", "give the folder that a training wrote"
        ) from error
    if replace(earlier, side=dimensions.side, window=dimensions.window) != dimensions:
        raise RecipeError(
            f"the model in {start} has other dimensions: {earlier}",
            "give the dimensions that it was made with; side and window may differ",
        )
    own = model.state_dict()
    for name in weights:
        if POSITIONS in name:
            table = stretched(weights[name].float()[: earlier.grid], dimensions.grid)
            weights[name] = torch.cat([table, own[name][dimensions.grid :]])
    left, unknown = model.load_state_dict({n: w.float() for n, w in weights.items()}, strict=False)
    # Tied tables are written once and so are "left" under their other names.
    if unknown or any("embed" not in name and "lm_head" not in name for name in left):
        raise RecipeError(
            f"{start} holds the weights of another kind of model", "give the folder that a training wrote"
        )


def stretched(table: torch.Tensor, rows: int) -> torch.Tensor:
    """A table of positions, (positions, width) float32, for so many of them."""
    from torch.nn import functional

    size = (rows, table.shape[-1])
    return functional.interpolate(table[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
