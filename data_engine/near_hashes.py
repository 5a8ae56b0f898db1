"""All pairs of near hashes among very many, without comparing each with each.

Two hashes that differ in at most d bits agree wholly in at least one of d + 1 bands of their bits (pigeonhole;
Manku et al., "Detecting near-duplicates for web crawling", WWW 2007): only those that share a band are
compared. Equal hashes are compared once, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]

_PAIRS_AT_ONCE = 1 << 22
_WIDEST = 24


def near_pairs(hashes: Words, distance: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Pairs of different rows of `hashes` (n, words) that differ in 0 < bits <= `distance`.

    Yields first, second (first < second) and the bits, in portions; a pair may come more than once.
    Rows must be distinct.
    """
    bits = hashes.shape[1] * 64
    edges = np.linspace(0, bits, distance + 2).astype(int)
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        key = _band(hashes, start, min(end, start + _WIDEST))
        order = np.argsort(key, kind="stable")
        sorted_key = key[order]
        ends = np.flatnonzero(np.append(sorted_key[1:] != sorted_key[:-1], True))
        after = np.repeat(ends, np.diff(ends, prepend=-1)) - np.arange(len(order))
        yield from _compared(hashes, order, after, distance)


def _compared(hashes: Words, order: Ints, after: Ints, distance: int) -> Iterator[tuple[Ints, Ints, Ints]]:
    rows = np.arange(len(order))
    step = 0
    while len(rows):
        step += 1
        rows = rows[after[rows] >= step]
        for start in range(0, len(rows), _PAIRS_AT_ONCE):
            part = rows[start : start + _PAIRS_AT_ONCE]
            first, second = order[part], order[part + step]
            differ = np.bitwise_count(hashes[first] ^ hashes[second]).sum(axis=1, dtype=np.int64)
            near = differ <= distance
            if near.any():
                low, high = np.minimum(first, second), np.maximum(first, second)
                yield low[near], high[near], differ[near]


def _band(hashes: Words, start: int, end: int) -> Words:
    """Bits `start` to `end` of each row as one number; the first bit is the first word's highest."""
    key = np.zeros(len(hashes), np.uint64)
    for bit in range(start, end):
        word, place = divmod(bit, 64)
        key = (key << np.uint64(1)) | ((hashes[:, word] >> np.uint64(63 - place)) & np.uint64(1))
    return key


def from_hex(texts: pa.ChunkedArray) -> Words:
    """Hexadecimal hashes of one length, a multiple of 16 digits, as (n, words)."""
    words = [np.frombuffer(bytes.fromhex(_joined(chunk)), dtype=">u8") for chunk in texts.chunks]
    return np.concatenate(words).astype(np.uint64).reshape(len(texts), -1)


def _joined(texts: pa.Array) -> str:
    whole = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    return str(pc.binary_join(whole, "")[0])
