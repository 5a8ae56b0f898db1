"""The checkpoint that a training begins with, where it does not begin with random weights.

A model may go on at another resolution, as Florence-2 itself was trained: first at 384 pixels, then at
768 (section 5 of the paper). Its weights stay; the tables of the image's positions are stretched.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_engine.errors import RecipeError
from specialists.florence2.scratch import Dimensions

_POSITIONS = "image_position_embed."


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
    from torch.nn import functional

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
        if _POSITIONS in name:
            table = weights[name].float()[None, None, : earlier.grid]
            stretched = functional.interpolate(
                table, (dimensions.grid, table.shape[-1]), mode="bilinear", align_corners=False
            )
            weights[name] = torch.cat([stretched[0, 0], own[name][dimensions.grid :]])
    left, unknown = model.load_state_dict({n: w.float() for n, w in weights.items()}, strict=False)
    # Tied tables are written once and so are "left" under their other names.
    if unknown or any("embed" not in name and "lm_head" not in name for name in left):
        raise RecipeError(
            f"{start} holds the weights of another kind of model", "give the folder that a training wrote"
        )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
