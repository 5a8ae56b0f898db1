"""Parquet files as a bad disk leaves them."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def damage_pages(file: Path, first: int = 4, length: int = 396) -> None:
    """Overwrite some bytes of the pages; the footer stays as it was."""
    data = bytearray(file.read_bytes())
    data[first : first + length] = b"\xff" * length
    file.write_bytes(bytes(data))


def flip_bit(file: Path, chance: float) -> None:
    """Turn over one bit of the pages, at `chance` (0 to 1, without 1) of their length; the footer stays."""
    data = bytearray(file.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little") + 8
    bit = 32 + int(chance * (len(data) - footer - 4) * 8)
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(data))


def flip_unseen_bit(file: Path, seed: int = 0) -> None:
    """Turn over one bit such that whoever passes over checksums reads another table than was written, without an error."""
    sound, written = file.read_bytes(), pq.read_table(file)
    chances = random.Random(seed)
    for _ in range(1000):
        flip_bit(file, chances.random())
        with contextlib.suppress(OSError, pa.ArrowInvalid, UnicodeDecodeError):
            if not pq.read_table(file).equals(written):
                return
        file.write_bytes(sound)
    raise AssertionError(f"every bit of {file} that turns over is noticed anyhow")
