"""A run on S3 through a server that breaks things ends with the rows of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.s3_server import s3_server
from tests.s3_storm import through


def test_a_few_images_through_a_storm(tmp_path: Path) -> None:
    with s3_server() as server:
        storm = through(server, tmp_path, images=6, shard_size=6, rate=0.15, seed=3)
    assert storm.differences == [] and storm.rows > 6
    assert storm.faults.total() > 5


@pytest.mark.slow
def test_outages_end_a_run_which_then_goes_on(tmp_path: Path) -> None:
    with s3_server() as server:
        storm = through(
            server, tmp_path, images=150, shard_size=10, rate=0.08, seed=4, outages=[150, 300], patience=3
        )
    assert storm.differences == []
    assert storm.ended and all("tried" in line for line in storm.ended)
    assert storm.calls <= storm.units + len(storm.ended), "what was finished is not done again"
