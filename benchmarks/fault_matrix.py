"""The fault matrix: what happens when files, disks, processes, clocks and networks fail, as a Markdown table.

    python benchmarks/fault_matrix.py [NAME ...] [--without-ray]

Each row is brought about for real on a small data set, and in each the rows that stand in the end are compared with an
undisturbed run's: nothing lost, nothing there twice. Ends with exit code 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import traceback
from pathlib import Path

from tests import fault_clocks, fault_disks, fault_images
from tests.fault_children import import_all
from tests.fault_place import Place, SkipError

SUBJECTS = {"images": fault_images.ROWS, "disks": fault_disks.ROWS, "clocks": fault_clocks.ROWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="subjects, or functions of tests/fault_*.py; all without any"
    )
    chosen = parser.parse_args().names
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="fde-faults-"))
    folder.chmod(0o755)
    place = Place.make(folder / "place")
    wrong = 0
    print("| fault | what happened | lost or twice |\n|---|---|---|")
    for subject, rows in SUBJECTS.items():
        for row in rows:
            if chosen and subject not in chosen and row.__name__ not in chosen:
                continue
            place.undo()
            try:
                happened, verdict = row(place), "nothing"
            except SkipError as reason:
                happened, verdict = f"not tried: {reason}", "-"
            except AssertionError:
                happened, verdict = "not as it should", "SEE BELOW"
                traceback.print_exc()
                wrong += 1
            print(f"| {row.__doc__} | {happened} | {verdict} |", flush=True)
    shutil.rmtree(folder)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
