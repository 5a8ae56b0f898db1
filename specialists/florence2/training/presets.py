"""Sizes of a Florence-2 that is made from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from data_engine.entry_point import did_you_mean
from data_engine.errors import RecipeError
from specialists.florence2.scratch import Dimensions


@dataclass(frozen=True)
class Preset:
    """`words` is the size of a tokenizer without marks and locations, `tokens` the least of a vocabulary with
    them; the rest is what `scratch.make_model` takes."""

    dimensions: Dimensions = field(default_factory=Dimensions)
    words: int = 1000
    tokens: int = 0
    language_heads: int | None = None
    spread: float = 0.06


PRESETS: dict[str, Preset] = {
    "toy": Preset(),
    "small": Preset(
        Dimensions(
            side=384, embed_dim=(64, 128, 256, 512), depths=(1, 1, 3, 1), patch_stride=(4, 2, 2, 2), window=12,
            width=512, encoder_layers=3, decoder_layers=3, feed_forward=2048, positions=1024,
        ),
        words=16_000,
        language_heads=8,
        spread=0.04,
    ),
    # florence-community/Florence-2-base: config.json of its vision tower and of its BART.
    "base": Preset(
        Dimensions(
            side=768, embed_dim=(128, 256, 512, 1024), depths=(1, 1, 9, 1), patch_stride=(4, 2, 2, 2), window=12,
            width=768, encoder_layers=6, decoder_layers=6, feed_forward=3072, positions=1024,
        ),
        words=50_265,
        tokens=51_289,
        language_heads=12,
        spread=0.02,
    ),
}  # fmt: skip
"""`toy` is the size of the shipped model of the scenes, `base` that of the released one."""


def preset(model: str | Mapping[str, Any]) -> Preset:
    """By name, or by `Dimensions` that differ from the toy's, with `words` beside them. Raises RecipeError."""
    if isinstance(model, str):
        if model not in PRESETS:
            raise RecipeError(
                f"{model!r} is no size of a model{did_you_mean(model, list(PRESETS))}",
                "name one, or give dimensions",
            )
        return PRESETS[model]
    known = [one.name for one in fields(Dimensions)]
    for key in model:
        if key not in (*known, "words"):
            raise RecipeError(
                f"model: {key!r} is no dimension{did_you_mean(key, known)}", "correct the recipe's `model`"
            )
    sizes: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in model.items() if k != "words"
    }
    dimensions = Dimensions(**sizes)
    dimensions.check()
    return Preset(dimensions, int(model.get("words", Preset.words)))
