"""The fault matrix holds: in no row is anything lost or there twice (benchmarks/fault_matrix.py makes the table)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import fault_clocks, fault_disks, fault_images, fault_networks, fault_processes, fault_ray
from tests.fault_cluster import ROOT

QUICK = (
    fault_images.source_gone,
    fault_images.turned_over,
    fault_disks.read_only_disk,
    fault_disks.file_limit,
    fault_disks.no_open_files,
    fault_disks.damaged_rows,
    fault_disks.bit_of_a_shard,
    fault_disks.missing_images,
    fault_disks.rubbish_beside,
    fault_processes.out_of_memory,
    fault_processes.two_drivers,
)
"""A second or less each, where the machine is idle."""

SLOW = {
    "images": fault_images.ROWS,
    "disks": fault_disks.ROWS,
    "processes": fault_processes.ROWS,
    "clocks": fault_clocks.ROWS,
    "networks": fault_networks.ROWS,
}


def table(*arguments: str) -> list[list[str]]:
    """The cells of what the benchmark prints, which raises no objection."""
    command = [sys.executable, str(Path("benchmarks") / "fault_matrix.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def hold(rows, found: list[list[str]]) -> None:
    assert [cells[0] for cells in found[1:]] == [row.__doc__ for row in rows]
    for fault, happened, lost in found[1:]:
        assert lost == "nothing" or happened.startswith("not tried"), fault


def test_faults_that_are_quick_to_bring_about_and_bad_files_of_fifty_kinds():
    found = table("--files", *(row.__name__ for row in QUICK))
    place = found.index(["file", "at ingest"])
    wanted = [row for rows in SLOW.values() for row in rows if row in QUICK]
    hold(wanted, found[:place])
    assert len(found) - place - 1 >= 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("subject", SLOW)
def test_all_faults_of_a_subject(subject):
    hold(SLOW[subject], table(subject))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_all_faults_of_a_cluster():
    hold(fault_ray.ROWS, table("ray"))
