"""Ctrl-C ends a query that runs in DuckDB, in its beginning and in the middle of its rows."""

from __future__ import annotations

import signal
import threading

import duckdb
import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.scratch import scratch
from data_engine.query import connect, run
from tests.qa_sets import hand_made


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return hand_made(tmp_path_factory.mktemp("asked"))


@pytest.mark.parametrize(
    "query",
    ["SELECT count(*) FROM range(1000000000000) WHERE range % 7 = 8",
     "SELECT range FROM range(1000000000000) WHERE range % 7 = 8 OR range < 200000"],
    ids=["before the first row", "between rows"],
)  # fmt: skip
def test_ctrl_c_ends_a_query_as_it_ends_everything(dataset, query):
    with connect(dataset) as connection:
        # Whether it comes before the query has begun or during it makes no difference to what is raised.
        timer = threading.Timer(1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            run(connection, query).read_all()
        timer.join()
        assert run(connection, "SELECT count(*) AS n FROM images").read_all()["n"].to_pylist() == [3]


def test_what_duckdb_makes_of_ctrl_c_in_an_ingest_is_ctrl_c():
    with pytest.raises(KeyboardInterrupt), scratch():
        raise RuntimeError("Query interrupted")
    with pytest.raises(duckdb.CatalogException), scratch() as db:
        db.execute("SELECT * FROM nothing")
