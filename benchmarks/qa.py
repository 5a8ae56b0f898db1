"""All reports and checks on a made-up data set, beside the same figures asked for in DuckDB by hand.

    python -m benchmarks.qa [--annotations 10000000] [--memory 4GB] [--folder FOLDER]

Makes the data set (benchmarks/qa_dataset.py; 0.7 GB for 10 million annotations), asks both sides in two
processes of their own, one after the other, and prints seconds, ratios and each process's peak of resident
memory. Rows of one are not held against the other's here: the tests have the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from benchmarks.qa_by_hand import CHECKS, KEPT, REPORTS
from benchmarks.qa_dataset import make
from data_engine.dataset import Dataset
from data_engine.qa.checks import run_checks
from data_engine.qa.queries import built_in
from data_engine.qa.reports import run_report
from data_engine.qa.session import open_session

_CHECK = "check "
_BY_HAND = {**REPORTS, **{_CHECK + name: sql for name, sql in CHECKS.items()}}

Timed = tuple[str, float, float]
"""A name, seconds by the clock, seconds of processor time."""


def ours(url: str, memory: str, scratch: str) -> Iterator[Timed]:
    opened = []
    yield _timed("opening", lambda: opened.append(open_session(Dataset.open(url), memory_limit=memory)))
    session = opened[0]
    for name in REPORTS:
        yield _timed(name, lambda name=name: run_report(session.connection, name))
    checks = built_in("checks")
    alone = [check for name, check in checks.items() if name not in CHECKS]
    yield _timed("checks of files and runs", lambda: run_checks(session, alone))
    for name in CHECKS:
        yield _timed(_CHECK + name, lambda name=name: run_checks(session, [checks[name]]))


def by_hand(url: str, memory: str, scratch: str) -> Iterator[Timed]:
    with duckdb.connect(config={"memory_limit": memory, "temp_directory": scratch}) as connection:
        connection.execute("SET enable_progress_bar = false")
        for name, sql in _BY_HAND.items():
            asked = sql.replace("KEPT", KEPT).replace("{ds}", url)
            yield _timed(name, lambda asked=asked: connection.execute(asked).fetchall())


def _timed(name: str, act: Callable[[], object]) -> Timed:
    wall, cpu = time.monotonic(), time.process_time()
    try:
        act()
    except duckdb.OutOfMemoryException:
        return name, float("nan"), float("nan")
    return name, time.monotonic() - wall, time.process_time() - cpu


def _in_process(side: str, url: str, memory: str, scratch: str, result: str) -> None:
    rows = []
    for row in (ours if side == "ours" else by_hand)(url, memory, scratch):
        rows.append(row)
        print(f"  {side}: {row[0]} {row[1]:.1f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(result).write_text(json.dumps({"rows": rows, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=int, default=10_000_000)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument(
        "--folder", help="Where the data set is made; an existing one is used again, and kept."
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        url = given.folder or f"{scratch}/dataset"
        if not (Path(url) / "dataset.json").is_file():
            started = time.monotonic()
            make(url, given.annotations)
            print(f"made {url} in {time.monotonic() - started:.0f} s", flush=True)
        size = sum(file.stat().st_size for file in Path(url).rglob("*.parquet")) / 1e9
        print(f"{size:.1f} GB, {shutil.disk_usage(url).free / 1e9:.0f} GB free", flush=True)
        found = {}
        for side in ("ours", "by hand"):
            result = f"{scratch}/{side}.json"
            process = multiprocessing.get_context("spawn").Process(
                target=_in_process, args=(side, url, given.memory, scratch, result)
            )
            process.start()
            process.join()
            found[side] = json.loads(Path(result).read_text())
    _print(found, given.memory)


def _print(found: dict[str, dict], memory: str) -> None:
    theirs = {name: (wall, cpu) for name, wall, cpu in found["by hand"]["rows"]}
    print(f"\n{'':<29} {'seconds':>8} {'by hand':>8} {'ratio':>6}   {'cpu':>7} {'by hand':>8} {'ratio':>6}")
    for name, wall, cpu in found["ours"]["rows"]:
        if name in theirs:
            hand, hand_cpu = theirs[name]
            beside = f"{hand:>8.2f} {wall / hand:>6.2f}   {cpu:>7.2f} {hand_cpu:>8.2f} {cpu / hand_cpu:>6.2f}"
        else:
            beside = f"{'':>8} {'':>6}   {cpu:>7.2f}"
        print(f"{name:<29} {wall:>8.2f} {beside}")
    checks = [name for name in _BY_HAND if name.startswith(_CHECK)]
    for what, names in (("all reports", REPORTS), ("all checks", checks), ("all", _BY_HAND)):
        mine = [sum(row[i] for row in found["ours"]["rows"] if row[0] in names) for i in (1, 2)]
        hand = [sum(row[i] for row in found["by hand"]["rows"] if row[0] in names) for i in (1, 2)]
        print(
            f"{what:<29} {mine[0]:>8.1f} {hand[0]:>8.1f} {mine[0] / hand[0]:>6.2f}   "
            f"{mine[1]:>7.1f} {hand[1]:>8.1f} {mine[1] / hand[1]:>6.2f}"
        )
    print(f"peak resident memory: {found['ours']['peak']:.0f} MiB; by hand {found['by hand']['peak']:.0f} MiB; "
          f"DuckDB's limit {memory}")  # fmt: skip


if __name__ == "__main__":
    main()
