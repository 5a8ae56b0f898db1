"""What DuckDB raises is told as the query's fault or as a damaged file's, wherever in an answer it comes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.dataset import Dataset
from data_engine.errors import DamagedError, FdeError, QueryError
from data_engine.query import connect, run, sql
from tests.damage import damage_pages
from tests.qa_sets import hand_made


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return hand_made(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("name", ["annotations/detector/00001", "verdicts/1/00001"])
def test_a_query_over_a_damaged_shard_says_that_a_file_cannot_be_read(tmp_path, name):
    dataset = hand_made(tmp_path)
    damage_pages(Path(dataset.store.path(f"{name}.parquet")))
    with pytest.raises(DamagedError, match="a stored file cannot be read") as caught:
        sql(dataset, "SELECT * FROM statements")
    assert "fde qa" in caught.value.hint and "\n" not in caught.value.message


def test_a_damaged_shard_that_is_met_in_the_middle_of_an_answer_is_told_of(tmp_path):
    dataset = hand_made(tmp_path)
    folder = Path(dataset.store.path("annotations/detector"))
    for number in range(2, 300):
        shutil.copy(folder / "00000.parquet", folder / f"{number:05d}.parquet")
    damage_pages(folder / "00299.parquet")
    with connect(dataset) as connection:
        rows = run(connection, "SELECT * FROM annotations")
        with pytest.raises(DamagedError, match="a stored file cannot be read"):
            for _ in rows:
                pass


@pytest.mark.parametrize("cut", [0, 3, 300])
def test_views_over_a_file_that_was_cut_are_refused_in_one_line(tmp_path, cut):
    dataset = hand_made(tmp_path)
    file = Path(dataset.store.path("annotations/detector/00000.parquet"))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DamagedError) as caught:
        sql(dataset, "SELECT * FROM annotations")
    assert "00000.parquet" in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize("name", [b"annotation_id", b"granularity", b"kind"])
def test_a_message_that_quotes_bytes_that_are_no_text_is_told_as_damage(tmp_path, name):
    dataset = hand_made(tmp_path)
    file = Path(dataset.store.path("annotations/detector/00000.parquet"))
    file.write_bytes(
        file.read_bytes().replace(name, b"\xee" * len(name))
    )  # a column's name, in the footer too
    with pytest.raises(DamagedError, match="a stored file cannot be read") as caught:
        sql(dataset, "SELECT * FROM annotations")
    assert "\n" not in caught.value.message


@settings(max_examples=25, deadline=None)
@given(start=st.floats(0, 1), length=st.integers(1, 3000), byte=st.integers(0, 255))
def test_whatever_is_overwritten_a_query_answers_or_raises_an_error_of_this_project(
    sound, start, length, byte
):
    file = Path(sound.store.path("annotations/detector/00000.parquet"))
    whole = file.read_bytes()
    first = int(start * len(whole))
    try:
        file.write_bytes(
            whole[:first] + bytes([byte]) * len(whole[first : first + length]) + whole[first + length :]
        )
        for view in ("annotations", "statements"):
            try:
                sql(Dataset.open(sound.url), f"SELECT * FROM {view}")
            except FdeError as error:
                assert isinstance(error, DamagedError | QueryError) and "\n" not in error.message
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "query",
    ["SELECT nothing", "SELEC", "SELECT CAST(image_id AS INTEGER) FROM images", "SELECT error('no')",
     "SELECT 9223372036854775807 + count(*) FROM images", "SELECT strptime(image_id, '%Y') FROM images"],
)  # fmt: skip
def test_a_mistake_in_the_query_is_no_damage(sound, query):
    with pytest.raises(QueryError) as caught:
        sql(sound, query)
    assert "views: " in caught.value.hint


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("SELECT widht FROM images", "images has image_id, keys, uri, offset, length, width, height, "),
        ("SELECT i.widht FROM images AS i", "images has image_id, "),
        ("WITH i AS (FROM images) SELECT nothing FROM i JOIN texts USING (image_id)", "; texts has "),
        ("SELECT nothing FROM range(3)", "views: "),
    ],
)
def test_a_column_that_is_not_there_is_answered_with_those_that_are(sound, query, hint):
    with pytest.raises(QueryError) as caught:
        sql(sound, query)
    assert hint in caught.value.hint and "\n" not in caught.value.hint
