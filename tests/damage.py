"""Parquet files as a bad disk leaves them."""

from __future__ import annotations

from pathlib import Path


def damage_pages(file: Path, first: int = 4, length: int = 396) -> None:
    """Overwrite some bytes of the pages; the footer stays as it was."""
    data = bytearray(file.read_bytes())
    data[first : first + length] = b"\xff" * length
    file.write_bytes(bytes(data))
