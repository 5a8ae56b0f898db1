"""Near-duplicate search over many 64-bit hashes: seconds and memory.

python benchmarks/near_duplicates.py [hashes [distance]]

One hash in twenty is a copy of another with up to `distance` bits changed; a thousand are equal, as blank
pictures are. All copies must be found.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from filters.near_duplicate import copies


def main(count: int, distance: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (count, 1), dtype=np.uint64)
    near = rng.choice(count, count // 20, replace=False)
    of = rng.integers(0, count, len(near))
    for _ in range(distance):
        flips = np.uint64(1) << rng.integers(0, 64, len(near), dtype=np.uint64)
        hashes[near] = hashes[of] ^ flips[:, None]
    hashes[:1000] = hashes[0]
    start, used = time.perf_counter(), time.process_time()
    bits = copies(hashes, distance)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{count:,} hashes, distance {distance}: {int((bits >= 0).sum()):,} copies in {seconds:.1f} s "
        f"({used:.1f} s of one core); {peak:,.0f} MiB at most"
    )


if __name__ == "__main__":
    main(*([int(value) for value in sys.argv[1:]] + [1_000_000, 4][len(sys.argv) - 1 :]))
