"""Filters that do little, slowly or badly, to run the judging with."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.query import sql
from data_engine.recipe import Where

VERSION = 1


def _all(annotations: pa.Table) -> pa.BooleanArray:
    return pa.array([True] * annotations.num_rows, pa.bool_())


class Seen:
    """Drops texts that the look at the whole data set found; each look leaves a mark in `folder`."""

    def __init__(self, folder: str, ends: str = "3") -> None:
        self.folder = folder
        self.ends = ends

    def survey(self, dataset: Dataset, where: Where) -> str:
        (Path(self.folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        query = f"SELECT DISTINCT text FROM texts WHERE text LIKE '%{self.ends}' ORDER BY 1"
        self.found = sql(dataset, query)["text"].combine_chunks()
        return str(self.found.to_pylist())

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.invert(pc.is_in(annotations["text"], self.found)).combine_chunks()


class DiesOnce:
    """Keeps all; kills its process on the first `times` calls, counted in a folder that outlives it."""

    def __init__(self, folder: str, times: int = 1) -> None:
        self.folder = Path(folder)
        self.times = times

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        marks = len(list(self.folder.iterdir()))
        if marks < self.times:
            (self.folder / str(marks)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return _all(annotations)


class Slow:
    """Keeps all, after `pause` seconds."""

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        time.sleep(self.pause)
        return _all(annotations)


class Raises:
    """Asks for a column that is not there."""

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.is_valid(annotations["beauty"])


class NeedsWeights:
    """Reads a file of weights when it is built."""

    def __init__(self, weights: str) -> None:
        self.weights = Path(weights).read_bytes()

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return _all(annotations)
