"""The outline of each kind, scaled so that its longer side fills the unit square."""

from __future__ import annotations

import functools

import numpy as np

from data_engine.scenes import shapes_pretraining, shapes_target
from data_engine.scenes.outlines import Layer

_SHAPES = shapes_pretraining.SHAPES | shapes_target.SHAPES


@functools.cache
def shape(kind: str) -> tuple[Layer, ...]:
    """The layers of a kind, bottom first, centred, their longer side from -1 to 1. Raises KeyError."""
    layers = _SHAPES[kind]
    filled = np.concatenate([layer.points for layer in layers if layer.paint == "fill"])
    low, high = filled.min(axis=0), filled.max(axis=0)
    centre, half = (low + high) / 2, (high - low).max() / 2
    return tuple(Layer(layer.paint, (layer.points - centre) / half) for layer in layers)
