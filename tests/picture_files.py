"""Small image files for tests, each with content of its own."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image


def pixels(seed: int, width: int = 24, height: int = 16) -> np.ndarray:
    """Coarse blocks of colour: they survive JPEG, and no two seeds are alike."""
    blocks = np.random.default_rng(seed).integers(
        0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8
    )
    return blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def encoded(image: np.ndarray | PIL.Image.Image, format: str, **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(seed: int, width: int = 24, height: int = 16, orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels(seed, width, height), "JPEG", exif=exif)


def png(seed: int, width: int = 24, height: int = 16) -> bytes:
    return encoded(pixels(seed, width, height), "PNG")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; there are hardly any pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    """Write files below a folder, and give the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder
