"""The fault matrix: what happens when files, disks, processes, clocks and networks fail, as a Markdown table.

    python benchmarks/fault_matrix.py [NAME ...]

Each row is brought about for real on a small data set, and in each the rows that stand in the end are compared with an
undisturbed run's: nothing lost, nothing there twice. Ends with exit code 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import traceback
from pathlib import Path

from tests import fault_clocks, fault_disks, fault_images, fault_networks, fault_processes, fault_ray
from tests.fault_children import import_all
from tests.fault_place import Place, SkipError

SUBJECTS = {
    "images": fault_images.ROWS,
    "disks": fault_disks.ROWS,
    "processes": fault_processes.ROWS,
    "clocks": fault_clocks.ROWS,
    "networks": fault_networks.ROWS,
    "ray": fault_ray.ROWS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="subjects, or functions of tests/fault_*.py; all without any"
    )
    parser.add_argument("--files", action="store_true", help="also a table of the kinds of bad files")
    given = parser.parse_args()
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="fde-faults-"))
    folder.chmod(0o755)
    place = Place.make(folder / "place")
    try:
        wrong = faults(place, given.names) + (kinds(place) if given.files else 0)
    finally:
        fault_ray.stop_cluster()
        shutil.rmtree(folder)
    if wrong:
        raise SystemExit(1)


def kinds(place: Place) -> int:
    """The table of bad files; how many are not as they should."""
    print("\n| file | at ingest |\n|---|---|")
    for kind, reason in fault_images.bad_files(place):
        print(f"| {kind} | {reason if ' ' in reason else f'`{reason}`'} |")
    return 0


def faults(place: Place, chosen: list[str]) -> int:
    """The table of faults; how many did not go as they should."""
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
    return wrong


if __name__ == "__main__":
    main()
