"""A run on S3 while the server cuts connections, answers 500 and 503, lists stale and goes away.

    python benchmarks/s3_faults.py [--images 2000] [--rate 0.05] [--outages 3] [--seed 1] [--runner inline]

Draws scenes, puts them in tars on a real S3 server (in a process of its own, over HTTP), ingests and annotates them there
once undisturbed, and once through a proxy that does to a share of all requests one of what tests/s3_proxy.py lists.
At some requests the server is away for twice the patience: that ends the run with an error, and the same command is
given again. Every row of both data sets is then compared. Ends with exit code 1 where one differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.s3_server import s3_server
from tests.s3_storm import through


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shard-size", type=int, default=25)
    parser.add_argument("--rate", type=float, default=0.05, help="share of requests that meet a fault")
    parser.add_argument("--outages", type=int, default=3)
    parser.add_argument("--patience", type=float, default=10, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runner", choices=("inline", "ray"), default="inline")
    chosen = parser.parse_args()
    # A run asks about three times for each image; the outages are spread over it.
    step = 3 * chosen.images // (chosen.outages + 1)
    with s3_server() as server, tempfile.TemporaryDirectory() as folder:
        storm = through(
            server,
            Path(folder),
            images=chosen.images,
            shard_size=chosen.shard_size,
            rate=chosen.rate,
            seed=chosen.seed,
            outages=[step * (number + 1) for number in range(chosen.outages)],
            patience=chosen.patience,
            runner=chosen.runner,
            tell=lambda line: print(line, flush=True),
        )
    faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(storm.faults.items()))
    print(f"{storm.requests:,} requests in {storm.seconds:,.0f} seconds; faults: {faults}")
    print(f"{storm.retries:,} times this process tried again (Arrow's own client asks up to 3 times before)")
    print(f"{len(storm.ended)} invocations ended with an error and were given again")
    print(f"{storm.units:,} units; specialists worked on {storm.calls:,}, of these {storm.again:,} again")
    print(f"{storm.rows:,} rows compared, {len(storm.differences)} shards differ")
    for line in storm.differences:
        print(f"  {line}")
    sys.exit(bool(storm.differences))


if __name__ == "__main__":
    main()
