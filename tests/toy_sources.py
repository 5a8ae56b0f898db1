"""Small folders of pictures to ingest, each picture different from every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (24, 16), start: int = 0) -> list[Path]:
    """PNG files 00000.png ...; the number of a picture is also in its first pixel, as 24 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(start, start + count):
        pixels = np.full((size[1], size[0], 3), (number * 37) % 200 + 20, np.uint8)
        pixels[0, 0] = [number >> 16 & 255, number >> 8 & 255, number & 255]
        path = folder / f"{number:05d}.png"
        PIL.Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def number_of(pixels: np.ndarray) -> int:
    """The number that `write_pictures` hid in a picture."""
    return int(pixels[0, 0].astype(int) @ np.array([65536, 256, 1]))
