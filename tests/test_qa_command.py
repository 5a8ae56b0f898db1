"""`fde qa`: what it prints, what it ends with, and that a person's own SQL can do no harm."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from data_engine.dataset import Dataset
from data_engine.errors import ChecksError, DatasetError, QueryError
from data_engine.ingest.run import ingest
from data_engine.qa.compare import beside
from data_engine.qa.queries import Query, parse
from data_engine.qa.scope import Scope, find_scope
from data_engine.scenes.write import make_scenes
from data_engine.schema import ANNOTATIONS
from pipelines.cli import main
from pipelines.filter import filter_dataset
from pipelines.qa import Findings, as_json, qa
from pipelines.qa_text import beside_paper
from tests.qa_sets import edit, hand_made


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return hand_made(tmp_path)


@pytest.fixture
def fde(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run `fde qa ARGS` in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fde", "qa", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        return (code if isinstance(code, int) else 0), *capfd.readouterr()

    return call


def look(dataset: Dataset, **more: object) -> Findings:
    return qa(dataset, more.pop("scope", None) or find_scope(dataset), **more)


def test_a_sound_data_set_ends_with_0_and_shows_the_tables(dataset, fde):
    code, out, err = fde(dataset.url)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{dataset.url}: what round 1 of verdicts kept"
    assert any(line.split() == ["text", "brief", "3", "/", "235M", "8.00", "/", "7.95"] for line in lines)
    assert "26 of 26 checks passed" in lines[-1]


def test_a_fault_ends_with_7_and_shows_its_rows(dataset, fde):
    edit(dataset, "annotations/detector/00000", lambda rows: [rows[0] | {"score": 2.0}, *rows[1:]])
    code, out, err = fde(dataset.url, "--format", "json")
    assert code == 7 and err.startswith("fde: 1 of 26 checks failed: scores (1)")
    found = json.loads(out)
    assert found["checks"]["scores"]["sample"][0]["annotation_id"] == "ad"
    assert {row["kind"] for row in found["reports"]["table2"]["rows"]} == {"text", "region-text", "triplets"}
    assert "failed: Scores outside of 0 to 1 (scores): 1 row" in fde(dataset.url)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--format", "xml"], 3, "neither text nor json"),
        (["--all", "--round", "0"], 3, "exclude each other"),
        (["--round", "7"], 3, "no verdicts of round 7"),
        (["--source", "detektor"], 3, "did you mean 'detector'"),
        (["--sql", "nowhere"], 3, "no folder"),
        (["--memory", "lots"], 3, "memory"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(dataset, fde, arguments, code, message):
    ended, _, err = fde(dataset.url, *arguments)
    assert ended == code and message in err and len(err.splitlines()) <= 2


def test_two_rounds_are_held_against_each_other(dataset, fde):
    found = look(dataset, against=(dataset, Scope(0)))
    rows = {(row["key"], row["figure"]): row for row in found.compared["table2"].to_pylist()}
    assert rows["region-text phrase", "regions"] == {
        "key": "region-text phrase", "figure": "regions", "this": 12.0, "other": 9.0, "change": 3.0,
    }  # fmt: skip
    assert rows["region-text ocr", "regions"]["this"] is None
    assert "kept" not in found.compared  # the verdicts of all rounds are the same on both sides
    _, out, _ = fde(dataset.url, "--against-round", "0")
    assert "what differs from" in out and "what round 0 of verdicts kept" in out


def test_two_data_sets_are_held_against_each_other(dataset, tmp_path):
    other = hand_made(tmp_path / "other", (("a",),))
    found = look(dataset, against=(other, find_scope(other)))
    rows = {row["key"]: row for row in found.compared["overview"].to_pylist()}
    assert (rows["images"]["this"], rows["images"]["other"]) == (3, 1)
    assert json.loads(as_json(found))["compared"]["overview"]


def test_results_without_a_key_are_not_compared():
    table = pa.table({"n": [1]})
    assert beside(Query("x", "x", "", ""), table, pa.table({"n": [2]})).num_rows == 0
    assert beside(Query("x", "x", "", "", ("gone",)), table, table).num_rows == 0


def test_ones_own_checks_and_reports(dataset, tmp_path, fde):
    folder = tmp_path / "sql"
    for part in ("checks", "reports"):
        (folder / part).mkdir(parents=True)
    (folder / "no_sofa.sql").write_text("-- title: No sofas here\nSELECT * FROM regions WHERE text = 'sofa';")
    (folder / "checks" / "wrong.sql").write_text("SELECT nothing FROM regions")
    (folder / "reports" / "mine.sql").write_text(
        "-- title: Mine\n-- key: text\nSELECT text, 1.5 AS n FROM texts LIMIT 1"
    )
    found = look(dataset, folders=[folder])
    mine, wrong = found.failed
    assert (mine.query.title, mine.rows) == ("No sofas here", 3)
    assert wrong.query.name == "wrong" and "nothing" in wrong.error
    with pytest.raises(ChecksError, match=r"2 of 28 checks failed: no_sofa \(3\), wrong \("):
        found.raise_if_failed()
    shown = fde(dataset.url, "--sql", str(folder))[1]
    assert "Mine" in shown and "failed: No sofas here" in shown


def test_a_folder_without_sql_is_refused(dataset, tmp_path):
    with pytest.raises(QueryError, match=r"has no \.sql file"):
        look(dataset, folders=[tmp_path])
    (tmp_path / "x.sql").write_bytes(b"SELECT '\xff'")
    with pytest.raises(QueryError, match="cannot be read"):
        look(dataset, folders=[tmp_path])


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{ds}/x.csv'",
        "WITH x AS (COPY (SELECT 1) TO '{ds}/x.csv') SELECT 1",
        "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{ds}/x.csv'') SELECT 1')",
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM enable_logging(storage := 'file', storage_path := '{ds}/logs')",
        "FROM enable_profiling(save_location := '{ds}/profile.json')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
        "DROP TABLE judged",
        "INSERT INTO judged VALUES (9, 'x')",
        "CREATE OR REPLACE VIEW annotations AS SELECT 1",
        "SELECT 1; DROP VIEW annotations",
        "FROM secret_table",
    ],
)
def test_ones_own_sql_writes_nothing_and_reads_nothing_outside(dataset, tmp_path, query):
    secret_table = pa.table({"a": ["a variable of this process"]})
    assert secret_table.num_rows
    outside = tmp_path / "secret.txt"
    outside.write_text("secret")
    folder = tmp_path / "sql"
    folder.mkdir()
    (folder / "bad.sql").write_text(query.format(ds=dataset.url, outside=outside))
    inside = sorted(Path(dataset.url).rglob("*"))
    found = look(dataset, folders=[folder])
    (bad,) = found.failed
    assert (
        bad.query.name == "bad"
        and bad.error
        and "secret" not in bad.error.replace("secret.txt", "").replace("secret_table", "")
    )
    assert sorted(Path(dataset.url).rglob("*")) == inside


def test_what_a_file_says_of_itself():
    query = parse(
        "x", "-- title: T\n-- by: shard\n-- key: a, b\n-- First,\n--\n-- second.\nSELECT 1 -- title: no"
    )
    assert (query.title, query.description, query.key, query.by_shard) == (
        "T",
        "First, second.",
        ("a", "b"),
        True,
    )
    assert parse("x", "SELECT 1") == Query("x", "x", "", "SELECT 1")


def test_figures_of_the_paper_stand_in_the_cells_of_ours():
    table = pa.table(
        {
            "n": [3, 12_000_000, None],
            "fld5b_n": [235_000_000, None, 1],
            "x": [0.5, None, 1.0],
            "fld5b_x": [1.25, 2.0, None],
        }
    )
    assert beside_paper(table).to_pydict() == {
        "n": ["3 / 235M", "12M", "- / 1"],
        "x": ["0.50 / 1.25", "- / 2.00", "1.00"],
    }


def test_sources_and_rounds_that_are_not_there_are_named(dataset):
    with pytest.raises(DatasetError, match="no annotations by 'x'"):
        find_scope(dataset, None, ("x",))
    with pytest.raises(DatasetError, match="no annotations by 'nobody'"):
        look(dataset, truth="nobody")


def test_drawn_scenes_pass_filtered_or_not(tmp_path):
    make_scenes(tmp_path / "scenes", 6, 3)
    ingest(str(tmp_path / "scenes"), str(tmp_path / "ds"), shard_size=4)
    dataset = Dataset.open(str(tmp_path / "ds"))
    assert [(check.query.name, check.error or check.rows) for check in look(dataset).failed] == []
    from data_engine.recipe import read_recipe

    recipe = read_recipe(
        "name: r\nfilters:\n  length: {use: 'filters.text_length:TextLength', args: {minimum_words: 12}}\n",
        "r",
    )
    filter_dataset(dataset, recipe)
    found = look(dataset)
    assert found.failed == [] and found.scope == "what round 0 of verdicts kept"
    assert found.reports["funnel"][1].num_rows >= 2


def test_shared_photos_are_looked_at_and_held_against_their_labels(shared, tmp_path):
    ingest(str(shared / "data" / "photos"), str(tmp_path / "ds"))
    dataset = Dataset.open(str(tmp_path / "ds"))
    said = dataset.annotations("human", "00000")
    at = said.column_names.index("source")
    said = said.set_column(at, "source", pa.array(["copy"] * len(said))).cast(ANNOTATIONS)
    dataset.write_annotations("copy", "00000", said, {"fingerprint": "c", "rows": len(said)})
    found = look(dataset, truth="human")
    assert {check.query.name for check in found.failed} == {"duplicate_ids"}
    figures = {figure.measure: figure.value for figure in found.truth}
    assert figures["boxes: AP"] == pytest.approx(1.0) and figures["boxes: recall"] == 1.0
    assert figures["brief texts: CIDEr"] > 100
    rows = {(row["kind"], row["granularity"]): row for row in found.reports["table2"][1].to_pylist()}
    assert (rows["text", "brief"]["image_annotations"], rows["region-text", "phrase"]["regions"]) == (
        870,
        1566,
    )
