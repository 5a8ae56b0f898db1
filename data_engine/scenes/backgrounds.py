"""What things stand on: a pattern in one or two tones, and clutter that no truth mentions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw

from data_engine.scenes.surfaces import noise_window
from data_engine.scenes.world import World

_DARK = 0.86
"""How dark the darker part of a pattern is beside the lighter."""

_CLUTTER = 34.0
"""How far in RGB, at most, a bit of clutter is from the background: things are three times as far."""


@dataclass(frozen=True)
class Background:
    """`tones` are names of the world's: one, or the two ends of a gradient. `clutter` counts its bits."""

    pattern: str
    tones: tuple[str, ...]
    clutter: int

    def colours(self, world: World) -> np.ndarray:
        """Samples of every colour that the pattern shows, (n, 3): what objects must stand out from."""
        ends = np.array([world.tones[tone] for tone in self.tones], dtype=float)
        if self.pattern in ("striped", "tiled", "wavy", "blotchy"):
            ends = np.concatenate([ends, ends * _DARK])
        weight = np.linspace(0, 1, 5)[:, None]
        samples: np.ndarray = ends[0] * (1 - weight) + ends[-1] * weight
        return samples

    def words(self) -> str:
        """As an adjective: "striped pale blue", or "a gradient between beige and pale pink"."""
        if self.pattern == "gradient":
            return f"a gradient between {self.tones[0]} and {self.tones[1]}"
        return f"{self.pattern} {self.tones[0]}"


def random_background(world: World, rng: np.random.Generator) -> Background:
    pattern = world.patterns[int(rng.integers(len(world.patterns)))]
    count = 2 if pattern == "gradient" else 1
    chosen = rng.choice(len(world.tones), size=count, replace=False)
    names = tuple(world.tones)
    clutter = int(rng.integers(6, 28)) if rng.random() < 0.35 else 0
    return Background(pattern, tuple(names[int(i)] for i in chosen), clutter)


def paint_background(
    background: Background, world: World, width: int, height: int, rng: np.random.Generator
) -> np.ndarray:
    """A float32 canvas (height, width, 3), 0..255."""
    first = np.array(world.tones[background.tones[0]], dtype=np.float32)
    last = np.array(world.tones[background.tones[-1]], dtype=np.float32)
    # NumPy is slow over a last axis of three: rows of width * 3 values are not.
    row = np.tile(first, width)
    flat = np.empty((height, width * 3), dtype=np.float32)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    angle = float(rng.uniform(0, 2 * math.pi))
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    period = np.float32(rng.uniform(0.06, 0.16) * min(width, height))
    if background.pattern == "gradient":
        across, down = (x / width - 0.5) * cos, (y / height - 0.5) * sin
        low, high = across.min() + down.min(), across.max() + down.max()
        across, down = (across - low) / (high - low), down / (high - low)
        step = np.tile(last - first, width)
        np.add(row + np.repeat(across[0], 3) * step, down * step, out=flat)
    elif background.pattern == "speckled":
        grain = int(rng.integers(1, 4))
        noise = noise_window(rng, -(-height // grain), -(-width // grain)) * np.float32(13)
        noise = noise.repeat(grain, axis=0)[:height].repeat(3 * grain, axis=1)[:, : width * 3]
        np.add(noise, row, out=flat)
    elif background.pattern == "plain":
        flat[:] = row
    else:
        dark = _darkness(background.pattern, x, y, cos, sin, period, rng)
        np.multiply(row, (1 - np.float32(1 - _DARK) * dark).repeat(3, axis=1), out=flat)
    canvas = flat.reshape(height, width, 3)
    return _cluttered(canvas, background.clutter, rng) if background.clutter else canvas


def _darkness(
    pattern: str,
    x: np.ndarray,
    y: np.ndarray,
    cos: np.float32,
    sin: np.float32,
    period: np.float32,
    rng: np.random.Generator,
) -> np.ndarray:
    """How much of the darker tone each pixel has, (h, w), 0..1; edges are about one pixel wide."""
    match pattern:
        case "striped":
            return _square_wave(x * cos + y * sin, period)
        case "tiled":
            side = period * 2
            across, down = _square_wave(x, side), _square_wave(y, side)
            tiles: np.ndarray = across + down - 2 * across * down
            return tiles
        case "wavy":
            return _square_wave(y + period * np.sin(x / (period * np.float32(0.8))), period * np.float32(1.5))
        case "blotchy":
            grain = max(4, int(period))
            noise = noise_window(rng, -(-y.size // grain) + 1, -(-x.size // grain) + 1)
            small = PIL.Image.fromarray(np.clip(noise * 90 + 128, 0, 255).astype(np.uint8))
            smooth = small.resize((x.size, y.size), PIL.Image.Resampling.BICUBIC)
            dark: np.ndarray = np.clip((np.asarray(smooth, dtype=np.float32) - 128) / 20 + 0.5, 0, 1)
            return dark
    raise KeyError(pattern)


def _square_wave(along: np.ndarray, period: np.float32) -> np.ndarray:
    phase = (along / period) % 1
    wave: np.ndarray = np.clip((0.25 - np.abs(phase - 0.5)) * period + 0.5, 0, 1)
    return wave


def _cluttered(canvas: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """Scraps, pebbles and scratches near the colour of the ground: no words for them, and no truth."""
    height, width = canvas.shape[:2]
    picture = PIL.Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = PIL.ImageDraw.Draw(picture)
    places = rng.uniform((0, 0), (width, height), (bits, 2))
    reach = rng.uniform(0.008, 0.028, bits) * min(width, height)
    kinds = rng.integers(3, size=bits)
    turns = rng.uniform(0, 2 * math.pi, (bits, 5))
    shifts = rng.uniform(-1, 1, (bits, 1)) * _CLUTTER / math.sqrt(3)
    for (x, y), r, kind, turn, shift in zip(places, reach, kinds, turns, shifts, strict=True):
        under = canvas[min(int(y), height - 1), min(int(x), width - 1)]
        fill = tuple(int(v) for v in np.clip(under + (shift - 12 if shift < 0 else shift + 12), 0, 255))
        if kind == 0:
            draw.ellipse([x - r, y - r * 0.8, x + r, y + r * 0.8], fill=fill)
        elif kind == 1:
            ends = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * r, axis=0) + (x, y)
            draw.line(ends.ravel().tolist(), fill=fill, width=1)
        else:
            corners = np.stack([np.cos(np.sort(turn)), np.sin(np.sort(turn))], 1) * r + (x, y)
            draw.polygon(corners.ravel().tolist(), fill=fill)
    return np.asarray(picture, dtype=np.float32)
