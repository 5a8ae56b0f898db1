"""A data set on S3 whose server is lost: a real server over HTTP, behind a proxy that can be away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.fs

from tests.fault_place import SHARD, Place
from tests.s3_proxy import s3_proxy
from tests.s3_server import s3_environment, s3_server


@contextmanager
def _on_s3(place: Place, outages: list[int], seconds: float, patience: float) -> Iterator[str]:
    """The data set ingested on S3; from the requests of those numbers on, the server is away for some seconds."""
    with (
        s3_server() as server,
        s3_proxy(server, rate=0) as (address, proxy),
        s3_environment(address, patience),
    ):
        url = "s3://bucket/dataset"
        made = place.fde("ingest", place.source, url, "--shard-size", SHARD)
        assert made.code == 0, made.text
        proxy.outage_seconds = seconds
        proxy.outages += [proxy.requests.total() + number for number in outages]
        yield url


def _fetch(place: Place, url: str) -> None:
    """Copy what S3 holds over the place's data set, to be compared."""

    def copy() -> None:
        bucket, path = pyarrow.fs.FileSystem.from_uri(url)
        shutil.rmtree(place.dataset)
        pyarrow.fs.copy_files(
            path,
            str(place.dataset),
            source_filesystem=bucket,
            destination_filesystem=pyarrow.fs.LocalFileSystem(),
        )
        os._exit(0)  # Arrow's S3 has threads that end when they like

    for folder in ("annotations", "failures", "images"):
        (place.dataset / folder).mkdir(parents=True, exist_ok=True)
    assert place.child(copy).ended().code == 0


def network_away_briefly(place: Place) -> str:
    """the network to the data set's store is lost for two seconds, three times"""
    with _on_s3(place, [8, 20, 30], 2.0, patience=60) as url:
        said = place.fde("annotate", url, "-r", place.recipe, "--runner", "inline")
        assert said.code == 0, said.text
        _fetch(place, url)
        place.whole()
    return "exit 0: every operation is tried again, for FDE_STORAGE_PATIENCE seconds"


def network_lost(place: Place) -> str:
    """the network to the data set's store is lost for good, in the middle"""
    with _on_s3(place, [20], 20.0, patience=4) as url:
        said = place.fde("annotate", url, "-r", place.recipe, "--runner", "inline")
        assert said.code == 4, said.text
        while place.fde("annotate", url, "-r", place.recipe, "--runner", "inline").code == 4:
            pass
        _fetch(place, url)
        place.whole()
    return f"exit 4, `{said.error[:120]}`; when it was back, the same command did the rest"


ROWS = (network_away_briefly, network_lost)
