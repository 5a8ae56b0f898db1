"""SQL: the views say what is stored, and nothing else can be read or written from a query."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import QueryError
from data_engine.ingest.run import ingest
from data_engine.query import VIEWS, connect, run, sql
from data_engine.query_output import print_table, printable, write_rows
from tests.toy_sources import write_pictures


def fill(url: str, pictures: Path) -> Dataset:
    """A data set with one image and a text, a phrase with its mask, a region with a score."""
    write_pictures(pictures, 1)
    ingest(str(pictures), url)
    dataset = Dataset.open(url)
    image_id = sql(dataset, "SELECT image_id FROM images")["image_id"][0].as_py()
    rows = AnnotationRows("model")
    text = Annotation("text", "a red cup", "brief", score=0.5)
    phrase = Annotation("phrase", "red cup", parent=text, span=(2, 9), box=(1, 2, 9, 8), score=0.75)
    mask = Annotation(
        "phrase", parent=phrase, box=(1, 2, 9, 8), mask={"size": [16, 24], "counts": "0"}, score=0.5
    )
    region = Annotation("region", "cup", "phrase", box=(1, 2, 9, 8), score=0.25)
    judged = Annotation("region", parent=region, score=0.125)
    assert rows.add(image_id, [text, phrase, mask, region, judged]) == []
    dataset.write_annotations("model", "00000", rows.table(), {"fingerprint": "x"})
    return dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    # Characters that mean something to a glob or to SQL, in the folder's own name.
    return fill(str(tmp_path / "it's [a] data*set?"), tmp_path / "pictures")


def test_every_view_answers_also_where_nothing_was_stored(dataset):
    counts = {view: sql(dataset, f"SELECT count(*) AS n FROM {view}")["n"][0].as_py() for view in VIEWS}
    assert counts == {
        "images": 1, "annotations": 5, "verdicts": 0, "failures": 0, "runs": 0, "rounds": 0,
        "texts": 1, "masks": 1, "regions": 1, "scores": 1, "triplets": 1,
        "members": 0, "changes": 0, "conflicts": 0, "elements": 0, "statements": 5, "said": 3, "said_boxes": 2,
    }  # fmt: skip


def test_a_triplet_joins_the_text_the_phrase_its_box_and_its_mask(dataset):
    (row,) = sql(
        dataset, "SELECT text, phrase, span, box, mask.counts AS counts, score FROM triplets"
    ).to_pylist()
    assert row == {
        "text": "a red cup", "phrase": "red cup", "span": [2, 9], "box": [1, 2, 9, 8], "counts": "0", "score": 0.75,
    }  # fmt: skip


def test_a_data_set_on_another_filesystem_answers_the_same(dataset, tmp_path):
    other = fill("memory://query/ds", tmp_path / "pictures")
    query = "SELECT * EXCLUDE (uri) FROM images JOIN regions USING (image_id)"
    assert sql(other, query).to_pylist() == sql(dataset, query).to_pylist()


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{ds}/x.csv'",
        "WITH x AS (COPY (SELECT 1) TO '{ds}/x.csv') SELECT 1",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{ds}/x.csv'",
        "ATTACH '{ds}/x.csv' AS db",
        "CREATE TABLE t (a INT)",
        "DROP VIEW images",
        "SET threads = 1",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "PRAGMA database_list",
        "",
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM read_text('{ds}/../secret.txt')",
        "SELECT * FROM glob('{ds}/../*')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
        "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{ds}/x.csv'') SELECT 1')",
        "SELECT * FROM json_execute_serialized_sql('{{}}')",
        "SELECT * FROM enable_logging(storage := 'file', storage_path := '{ds}/logs')",
        "SELECT * FROM enable_profiling(save_location := '{ds}/profile.json')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM parquet_metadata('{outside}')",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM inside",
        "SELECT * FROM no_such_view",
        "SELECT (",
        "SELECT 1) UNION (SELECT 2",
    ],
)
def test_nothing_can_be_written_and_nothing_outside_can_be_read(dataset, tmp_path, query):
    (tmp_path / "secret.txt").write_text("secret")
    inside = set(Path(dataset.url).rglob("*"))
    with pytest.raises(QueryError) as caught:
        sql(dataset, query.format(ds=dataset.url.replace("'", "''"), outside=tmp_path / "secret.txt"))
    assert "\n" not in str(caught.value) and caught.value.hint
    assert set(Path(dataset.url).rglob("*")) == inside


def test_each_connection_spills_into_a_folder_of_its_own_which_goes_with_it(dataset):
    with connect(dataset, "60MB") as one, connect(dataset, "60MB") as two:
        scratch = [
            run(c, "SELECT current_setting('temp_directory') AS d").read_all()["d"][0].as_py()
            for c in (one, two)
        ]
        assert scratch[0] != scratch[1]
        sorted_rows = (
            "SELECT md5(i::VARCHAR) AS a, md5((i + 1)::VARCHAR) AS b FROM range(1000000) t(i) ORDER BY a, b"
        )
        assert sum(batch.num_rows for batch in run(one, sorted_rows)) == 1_000_000
        assert any(Path(scratch[0]).iterdir())
    assert not any(Path(folder).exists() for folder in scratch)


def test_order_semicolons_and_comments_are_taken_as_written(dataset):
    rows = sql(dataset, "SELECT i FROM range(100) t(i) ORDER BY i DESC; -- last first\n")
    assert rows["i"].to_pylist() == list(range(99, -1, -1))
    assert sql(dataset, "DESCRIBE texts").num_rows == 8


@given(st.text())
def test_what_is_shown_in_a_terminal_holds_no_control_character(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\u3000\u00a0" or ord(c) > 0x9F for c in shown)
    assert "\x1b" not in shown and "\n" not in shown and "\u202e" not in shown


def test_markup_from_data_is_shown_as_it_is():
    out = io.StringIO()
    rows = pa.table({"[bold]t": ["[red]x[/red] \x1b[31m"], "n": [3]}).to_reader()
    print_table(rows, Console(file=out, width=100))
    assert "[red]x[/red] \\x1b[31m" in out.getvalue() and "[bold]t" in out.getvalue()


def test_a_long_answer_is_cut_in_a_table_and_says_so():
    out = io.StringIO()
    print_table(pa.table({"n": range(1000)}).to_reader(), Console(file=out, width=100))
    assert "40 of 1,000 rows" in out.getvalue() and "999" not in out.getvalue()


def test_a_whole_table_cuts_no_cell():
    rows = {name: ["word " * 100 + name] for name in "abc"}
    out = io.StringIO()
    print_table(pa.table(rows).to_reader(), Console(file=out, width=100), whole=True)
    assert all(rows[name][0] in out.getvalue() for name in rows) and "…" not in out.getvalue()
    print_table(pa.table(rows).to_reader(), cut := Console(file=io.StringIO(), width=100))
    assert "…" in cut.file.getvalue()


def test_csv_json_and_parquet_hold_the_same_rows(dataset):
    query = "SELECT text, box, score, span FROM annotations ORDER BY annotation_id"
    written = {}
    with connect(dataset) as connection:
        for format_ in ("csv", "json", "parquet"):
            stream = io.BytesIO()
            write_rows(run(connection, query), stream, format_)
            written[format_] = stream.getvalue()
    expected = sql(dataset, query).to_pylist()
    assert [json.loads(line) for line in written["json"].splitlines()] == expected
    assert pq.read_table(io.BytesIO(written["parquet"])).to_pylist() == expected
    read = pa.csv.read_csv(io.BytesIO(written["csv"])).to_pylist()
    assert [None if r["box"] in (None, "") else json.loads(r["box"]) for r in read] == [
        r["box"] for r in expected
    ]
