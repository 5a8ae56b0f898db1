"""Light and camera: what lies between a scene and its picture. The same for every world."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageFilter

from data_engine.scenes.surfaces import noise_window

_BLURRED_AT = 240


@dataclass(frozen=True)
class Optics:
    """`exposure` multiplies all light, `tint` each channel; `slope` is how much more light falls on one
    edge than in the middle, `towards` (radians) where that edge is. `blur` is a box's radius in
    pixels of a picture whose shorter side has `_BLURRED_AT`, `grain` the noise's standard deviation of 255,
    `quality` JPEG's, and `shadow` how far (x, y) shadows fall, in pixels."""

    exposure: float
    tint: tuple[float, float, float]
    slope: float
    towards: float
    blur: float
    grain: float
    quality: int
    shadow: tuple[int, int] | None

    @property
    def dim(self) -> bool:
        return self.exposure < 0.82

    @property
    def blurry(self) -> bool:
        return self.blur >= 0.9

    @property
    def lit_from(self) -> str:
        """The side that is clearly brighter, or an empty text."""
        if self.slope < 0.14:
            return ""
        x, y = math.cos(self.towards), math.sin(self.towards)
        if abs(x) > 1.5 * abs(y):
            return "right" if x > 0 else "left"
        if abs(y) > 1.5 * abs(x):
            return "bottom" if y > 0 else "top"
        return ""


def random_optics(width: int, height: int, rng: np.random.Generator) -> Optics:
    """Most scenes are sharp and well lit; one in seven is blurred, one in four is grainy."""
    scale = min(width, height) / _BLURRED_AT
    shadow = None
    if rng.random() < 0.5:
        away = rng.uniform(-1, 1)
        shadow = (round(away * 5 * scale), round(float(rng.uniform(2, 5)) * scale))
    return Optics(
        exposure=float(rng.uniform(0.72, 0.82) if rng.random() < 0.12 else rng.uniform(0.88, 1.06)),
        tint=(float(rng.uniform(0.96, 1.04)), 1.0, float(rng.uniform(0.95, 1.05))),
        slope=float(rng.uniform(0.08, 0.2)) if rng.random() < 0.4 else 0.0,
        towards=float(rng.uniform(-math.pi, math.pi)),
        blur=float(rng.uniform(0.5, 1.3)) if rng.random() < 0.15 else 0.0,
        grain=float(rng.uniform(2, 8)) if rng.random() < 0.25 else 0.0,
        quality=int(rng.integers(35, 60)) if rng.random() < 0.15 else int(rng.integers(70, 96)),
        shadow=shadow,
    )


def taken(canvas: np.ndarray, optics: Optics, rng: np.random.Generator) -> np.ndarray:
    """The picture (h, w, 3) uint8 of a float32 canvas, which is changed in place."""
    height, width = canvas.shape[:2]
    # NumPy is slow over a last axis of three: rows of width * 3 values are not.
    flat = canvas.reshape(height, width * 3)
    gain = np.tile(np.array(optics.tint, dtype=np.float32) * np.float32(optics.exposure), width)
    if optics.slope:
        x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(math.cos(optics.towards))
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(math.sin(optics.towards))
        slope = np.float32(optics.slope)
        flat *= gain * (1 + slope * x).repeat(3) + y * (slope * gain)
    else:
        flat *= gain
    if optics.grain:
        flat += noise_window(rng, height, width).repeat(3, axis=1) * np.float32(optics.grain)
    flat += np.float32(0.5)
    pixels: np.ndarray = np.clip(flat, 0, 255, out=flat).astype(np.uint8).reshape(height, width, 3)
    if optics.blur:
        radius = optics.blur * min(width, height) / _BLURRED_AT
        pixels = np.asarray(PIL.Image.fromarray(pixels).filter(PIL.ImageFilter.BoxBlur(radius)))
    return pixels
