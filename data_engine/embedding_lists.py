"""Very many embeddings in lists of neighbours, so that each has to be compared with few.

Spherical k-means over a sample (as Faiss trains its inverted lists: 256 rows for each centre, ten rounds), then each
row's nearest centres. Rows are codes of data_engine/embedding_codes.py, in memory or in a mapped file, and are floats
only some thousand at a time. The outcome depends on the codes alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_engine.embedding_codes import Codes, Singles

Lists = NDArray[np.int32]

_SAMPLE = 256
_ROUNDS = 10
_AT_ONCE = 1 << 13


def lengths_of(codes: Codes) -> Singles:
    """The length of each code (n, d); infinity for zeros, so that their cosines are 0."""
    found = np.empty(len(codes), np.float32)
    for part in _parts(len(codes)):
        floats = codes[part].astype(np.float32)
        found[part] = np.sqrt(np.einsum("nd,nd->n", floats, floats))
    found[found == 0] = np.inf
    return found


def nearest_lists(codes: Codes, count: int, searched: int) -> Lists:
    """For each code (n, d) its `searched` nearest of `count` lists, the nearest first: (n, searched)."""
    centres = _centres(codes, count)
    lists = np.empty((len(codes), searched), np.int32)
    for part in _parts(len(codes)):
        products = codes[part].astype(np.float32) @ centres.T
        rows = np.arange(len(products))
        for place in range(searched):
            best = products.argmax(axis=1)
            lists[part, place] = best
            products[rows, best] = -np.inf
    return lists


def _centres(codes: Codes, count: int) -> Singles:
    """Centres of length one (count, d), by k-means over a sample."""
    rng = np.random.default_rng(0)
    sample = codes[np.sort(rng.choice(len(codes), min(len(codes), _SAMPLE * count), replace=False))]
    lengths = lengths_of(sample)
    centres = _of_length_one(sample[rng.choice(len(sample), count, replace=False)].astype(np.float32))
    for _ in range(_ROUNDS):
        sums = np.zeros_like(centres)
        for part in _parts(len(sample)):
            rows = sample[part].astype(np.float32) / lengths[part, None]
            own = (rows @ centres.T).argmax(axis=1)
            order = np.argsort(own, kind="stable")
            starts = np.flatnonzero(np.diff(own[order], prepend=-1))
            sums[own[order[starts]]] += np.add.reduceat(rows[order], starts)
        empty = np.flatnonzero(~sums.any(axis=1))
        sums[empty] = sample[rng.choice(len(sample), len(empty))]
        centres = _of_length_one(sums)
    return centres


def _of_length_one(vectors: Singles) -> Singles:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)
