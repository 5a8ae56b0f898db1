"""Near duplicates among many embeddings: seconds, memory, and how many of those that comparing all finds.

python benchmarks/embedding_neighbours.py [vectors [width [similarity]]]

The vectors lie in clusters, some much larger than others; one in ten is a copy of another, changed so much that
their cosine is 0.93 to 1, about the threshold. What the lists find and comparing all does not are copies of a copy
that they missed.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from typing import IO

import numpy as np

from data_engine.embedding_codes import Codes, codes_of
from filters.near_embedding import near_earlier


def main(count: int, width: int, similarity: float) -> None:
    with tempfile.TemporaryFile() as scratch:
        codes = _written(scratch, count, width)
        start = time.perf_counter()
        listed = ~np.isnan(near_earlier(codes, similarity))
        seconds, peak = time.perf_counter() - start, _peak()
        print(
            f"{count:,} x {width}, cosine {similarity}: {int(listed.sum()):,} copies in {seconds:.1f} s; "
            f"{peak:,.0f} MiB at most"
        )
        start = time.perf_counter()
        whole = ~np.isnan(near_earlier(codes, similarity, exact=count))
        both = int((listed & whole).sum())
        print(
            f"each with each: {int(whole.sum()):,} copies in {time.perf_counter() - start:.1f} s; the lists found "
            f"{both / max(1, int(whole.sum())):.2%} of them, and {int((listed & ~whole).sum()):,} others"
        )


def _written(scratch: IO[bytes], count: int, width: int) -> Codes:
    """Random vectors in a mapped file, made a part at a time so that they do not count as the search's memory."""
    rng = np.random.default_rng(0)
    groups = max(10, count // 200)
    centres = rng.normal(size=(groups, width)).astype(np.float32)
    for start in range(0, count, 10_000):
        size = min(10_000, count - start)
        # Some clusters are much larger than others, as subjects are.
        group = (groups * rng.random(size) ** 2).astype(int)
        made = centres[group] + rng.normal(size=(size, width)).astype(np.float32)
        copies = np.flatnonzero(rng.random(size) < 0.1)
        noise = rng.normal(size=(len(copies), width)).astype(np.float32) * rng.uniform(
            0, 0.55, (len(copies), 1)
        )
        made[copies] = made[rng.integers(0, size, len(copies))] + noise
        scratch.write(codes_of(made.astype(np.float32)).tobytes())
    scratch.flush()
    return np.memmap(scratch, np.int8, "r", shape=(count, width))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    given = sys.argv[1:]
    main(
        int(given[0]) if given else 100_000,
        int(given[1]) if len(given) > 1 else 512,
        float(given[2]) if len(given) > 2 else 0.95,
    )
