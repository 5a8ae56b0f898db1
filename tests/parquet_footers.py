"""Parquet files of nothing but a footer, written by hand: Thrift's compact protocol, as parquet.thrift says."""

from __future__ import annotations

import struct

_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12


def nested(depth: int) -> bytes:
    """A file without rows whose schema has a column of bytes, `image`, and one that lies `depth` groups deep."""
    elements = [
        _struct((4, _BINARY, b"schema"), (5, _I32, 2)),
        _struct((1, _I32, 6), (3, _I32, 1), (4, _BINARY, b"image")),
        *[_struct((3, _I32, 1), (4, _BINARY, b"g"), (5, _I32, 1))] * depth,
        _struct((1, _I32, 1), (3, _I32, 1), (4, _BINARY, b"leaf")),
    ]
    schema = _varint(len(elements)).join([bytes([0xF0 | _STRUCT]), b"".join(elements)])
    footer = _struct((1, _I32, 1), (2, _LIST, schema), (3, _I64, 0), (4, _LIST, bytes([_STRUCT])))
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _struct(*fields: tuple[int, int, int | bytes]) -> bytes:
    made, last = b"", 0
    for number, kind, value in fields:
        made += bytes([(number - last) << 4 | kind])
        last = number
        if isinstance(value, int):
            made += _varint(value << 1)  # zigzag, of numbers that are not negative
        else:
            made += (_varint(len(value)) if kind == _BINARY else b"") + value
    return made + b"\0"


def _varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made += bytes([value & 0x7F | 0x80])
        value >>= 7
    return made + bytes([value])
