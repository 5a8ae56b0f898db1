"""The reports on a data set written by hand: every figure is known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.dataset import Dataset
from data_engine.errors import QueryError
from data_engine.qa.checks import check_names
from data_engine.qa.reports import find_report, report_names, run_report
from data_engine.qa.scope import Scope, find_scope
from data_engine.query import connect
from data_engine.schema import ANNOTATIONS, FAILURES, ROUNDS
from data_engine.shards import write_shard
from tests.qa_sets import edit, hand_made, statement

ALL = Scope()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three images, of each of which the same is said."""
    return hand_made(tmp_path_factory.mktemp("qa"))


def report(dataset: Dataset, name: str, scope: Scope | None = None) -> list[dict]:
    with connect(dataset, scope=scope) as connection:
        return run_report(connection, name).to_pylist()


def test_table_2_is_exact(dataset):
    rows = report(dataset, "table2", ALL)
    ours = {
        (row["kind"], row["granularity"]): (
            row["image_annotations"], row["avg_tokens"], row["regions"], row["avg_regions"], row["avg_regional_tokens"],
        )
        for row in rows
    }  # fmt: skip
    # "Rex, an old dog, sleeps." is 5 words and 3 signs; "Ein Hund 🐕 schläft." 3 words and 2 signs.
    assert ours == {
        ("text", "brief"): (3, 8.0, None, None, None),
        ("text", "detailed"): (3, 5.0, None, None, None),
        ("text", "more_detailed"): (0, None, None, None, None),
        # dog (human), Dog, sofa, and the fused dog
        ("region-text", "phrase"): (3, None, 12, 4.0, 1.0),
        ("region-text", "brief"): (3, None, 3, 1.0, 3.0),
        ("region-text", "ocr"): (3, None, 3, 1.0, 1.0),
        # "an old dog" and "Rex"
        ("triplets", "brief"): (3, 8.0, 6, 2.0, 2.0),
        ("triplets", "detailed"): (3, 5.0, 3, 1.0, 1.0),
        ("triplets", "more_detailed"): (0, None, 0, None, None),
    }


def test_the_figures_of_the_paper_stand_beside(dataset):
    papers = {
        (row["kind"], row["granularity"]): tuple(
            value for name, value in row.items() if name.startswith("fld5b")
        )
        for row in report(dataset, "table2")
    }
    assert papers["text", "more_detailed"] == (126_000_000, 70.53, None, None, None)
    assert papers["region-text", "brief"] == (126_000_000, None, 681_000_000, 5.42, 2.55)
    assert papers["triplets", "detailed"] == (126_000_000, 31.65, 1_289_000_000, 10.25, 1.49)
    # Its 5.42 billion annotations are the sum of texts, region-text pairs and boxes of triplets.
    total = sum(
        counts[0] if kind == "text" else counts[2] for (kind, _), counts in papers.items() if counts[0]
    )
    assert total == 5_423_000_000


def test_table_3_is_exact(tmp_path):
    dataset = hand_made(tmp_path)
    more = [
        statement("c3", "c", "captioner", "text", granularity="brief", text="Another."),
        statement("c4", "c", "captioner", "text", granularity="detailed", text="Not taken apart."),
    ]
    dataset.write_annotations("more", "00001", pa.Table.from_pylist(more, ANNOTATIONS), {})
    made_of = {"objects": [], "names": [], "attributes": ["small", "red"], "actions": ["runs", "sees"],
               "object_complexity": 0, "action_complexity": 4}  # fmt: skip
    twice = [
        statement(
            f"c{n}", "c", "apart", "text", granularity="elements", text=json.dumps(made_of), parent_id="c3"
        )
        for n in (5, 6)
    ]
    broken = statement("c7", "c", "apart", "text", granularity="elements", text="{", parent_id="c4")
    dataset.write_annotations("apart", "00001", pa.Table.from_pylist([*twice, broken], ANNOTATIONS), {})
    rows = {row.pop("granularity"): row for row in report(dataset, "table3", ALL)}
    ours = {g: {n: v for n, v in row.items() if not n.startswith("fld5b")} for g, row in rows.items()}
    # Three texts have 2 objects, 1 attribute, 1 action, 1 name; the fourth 0, 2, 2, 0, though it was taken apart twice.
    assert ours["brief"] == {
        "texts": 4, "taken_apart": 4, "objects": 1.5, "attributes": 1.25, "actions": 1.25, "proper_nouns": 0.75,
        "object_complexity": 2.25, "action_complexity": 2.5,
    }  # fmt: skip
    nothing = dict.fromkeys(
        ("objects", "attributes", "actions", "proper_nouns", "object_complexity", "action_complexity")
    )
    assert ours["detailed"] == {"texts": 4, "taken_apart": 0, **nothing}
    assert ours["more_detailed"] == {"texts": 0, "taken_apart": 0, **nothing}
    assert (
        rows["more_detailed"]["fld5b_objects"] == 28.06 and rows["brief"]["fld5b_action_complexity"] == 1.14
    )


def test_table_1_counts_as_the_paper_does(dataset):
    ours, *others = report(dataset, "table1", ALL)
    # 6 texts, 18 region-text pairs, 9 boxes of phrases
    assert (ours["images"], ours["annotations"]) == (3, 33)
    assert (ours["level"], ours["semantics"]) == ("image and region", "coarse to fine")
    assert [row["data set"] for row in others] == ["FLD-5B", "GrIT", "SA-1B", "WIT", "JFT300M", "M3W"]


def test_reports_are_about_what_the_last_round_kept(dataset):
    def phrases_and_letters(scope: Scope | None) -> list[int]:
        rows = {(r["kind"], r["granularity"]): r["regions"] for r in report(dataset, "table2", scope)}
        return [rows["region-text", "phrase"], rows.get(("region-text", "ocr"), 0)]

    assert phrases_and_letters(None) == [12, 0]
    assert phrases_and_letters(find_scope(dataset, 0)) == [9, 3]
    assert phrases_and_letters(ALL) == [12, 3]
    assert phrases_and_letters(find_scope(dataset, 0, ("detector",))) == [3, 3]


def test_a_source_that_a_round_did_not_judge_is_not_in_it(tmp_path):
    dataset = hand_made(tmp_path)
    late = statement("late", "a", "late", "text", granularity="brief", text="late")
    dataset.write_annotations("late", "00000", pa.Table.from_pylist([late], ANNOTATIONS), {})
    sources = {row["source"]: (row["statements"], row["counted"]) for row in report(dataset, "sources")}
    assert sources["late"] == (1, 0) and sources["elements"] == (3, 3)


def test_boxes_are_counted_by_size_aspect_and_place(dataset):
    # Of each image: human dog 32 x 32, Dog 32 x 28, sofa 64 x 48, fused dog 32 x 30, letters 8 x 4;
    # phrases 32 x 32 twice and 2 x 2. The image is 64 x 48.
    area = {(r["kind"], r["granularity"], r["bin"]): r["boxes"] for r in report(dataset, "area", ALL)}
    assert area == {
        ("region-text", "phrase", 10): 3,  # Dog: the square root of 896 / 3072 is 0.540
        ("region-text", "phrase", 11): 6,  # 0.559 of 960, 0.577 of 1024
        ("region-text", "phrase", 19): 3,
        ("region-text", "ocr", 2): 3,  # 0.102
        ("triplets", "", 11): 6,
        ("triplets", "", 0): 3,
    }
    aspect = {(r["kind"], r["granularity"], r["bin"]): r["boxes"] for r in report(dataset, "aspect", ALL)}
    assert aspect == {
        ("region-text", "phrase", 0): 12,
        ("region-text", "ocr", 2): 3,  # twice as wide as high
        ("triplets", "", 0): 9,
    }
    centres = {
        (r["kind"], r["granularity"], r["x"], r["y"]): r["boxes"] for r in report(dataset, "centres", ALL)
    }
    assert centres == {
        ("region-text", "phrase", 6, 8): 3,
        ("region-text", "phrase", 6, 7): 6,
        ("region-text", "phrase", 8, 8): 3,
        ("region-text", "ocr", 1, 1): 3,
        ("triplets", "", 6, 8): 6,
        ("triplets", "", 0, 0): 3,
    }
    distances = {
        (r["kind"], r["granularity"], r["bin"]): r["boxes"] for r in report(dataset, "distances", ALL)
    }
    assert sum(distances.values()) == 24 and distances["region-text", "phrase", 0] == 3


def test_sources_and_classes(dataset):
    rows = report(dataset, "sources", ALL)
    detector = {
        (r["granularity"], r["what"]): (r["statements"], r["avg_score"])
        for r in rows
        if r["source"] == "detector"
    }
    assert detector == {
        ("phrase", "text"): (6, 0.5625),
        ("brief", "text"): (3, None),
        ("ocr", "text"): (3, None),
    }
    assert {r["what"] for r in rows} == {"mask", "text", "score"}
    classes = {r["class"]: (r["regions"], r["images"]) for r in report(dataset, "classes", ALL)}
    assert classes == {"dog": (9, 3), "sofa": (3, 3)}


def test_scores_fall_into_twenty_bins(dataset):
    rows = report(dataset, "scores", ALL)
    grounder = {r["bin"]: r["statements"] for r in rows if r["source"] == "grounder"}
    assert grounder == {10: 6, 15: 3, 19: 3}
    assert all(r["low"] <= 0.95 and r["high"] == pytest.approx(r["low"] + 0.05) for r in rows)


def test_the_funnel_and_what_rounds_changed(dataset):
    funnel = {(r["round"], r["filter"]): r["statements"] for r in report(dataset, "funnel")}
    assert funnel == {(0, "low"): 3, (0, "kept"): 48, (1, "low"): 3, (1, "kept"): 48}
    kept = {(r["round"], r["source"]): (r["judged"], r["kept"]) for r in report(dataset, "kept")}
    assert kept[0, "detector"] == (12, 9) and kept[1, "captioner"] == (6, 6)
    changed = {(r["round"], r["source"], r["change"]): r["statements"] for r in report(dataset, "changed")}
    assert changed == {(1, "detector", "regained"): 3, (1, "detector", "lost"): 3}


def test_what_only_one_round_judged_is_no_change(tmp_path):
    dataset = hand_made(tmp_path)
    edit(dataset, "verdicts/1/00000", lambda rows: [row for row in rows if row["source"] == "human"])
    edit(dataset, "verdicts/1/00001", lambda rows: [row for row in rows if row["source"] == "human"][:1])
    assert report(dataset, "changed") == [{"round": 1, "source": "human", "change": "gone", "statements": 1}]


def test_what_was_merged_is_counted_by_why(tmp_path):
    dataset = hand_made(tmp_path)
    change = statement("w", "a", "fused", "region", granularity="change", text="confirmed", parent_id="ag")
    edit(dataset, "annotations/fused/00000", lambda rows: [*rows, change])
    assert report(dataset, "merged") == [
        {"source": "fused", "change": "confirmed", "kind": "region", "statements": 1}
    ]


def test_fused_statements_by_what_they_are_made_of(dataset):
    assert report(dataset, "composition") == [
        {
            "source": "fused",
            "kind": "region",
            "made of": "detector + human",
            "statements": 3,
            "avg_members": 2.0,
        }
    ]


def test_sources_agree_where_their_boxes_do(dataset):
    rows = {(r["source"], r["other"]): r for r in report(dataset, "agreement", ALL)}
    # The human dog overlaps the detector's by 7 / 8; the sofa is the detector's alone.
    ours = rows["detector", "human"]
    assert (ours["boxes"], ours["matched"], ours["same_class"], ours["avg_iou"]) == (6, 3, 3, 0.875)
    theirs = rows["human", "detector"]
    assert (theirs["boxes"], theirs["matched"], theirs["same_class"], theirs["avg_iou"]) == (3, 3, 3, 0.875)
    assert rows["human", "fused"]["avg_iou"] == 0.9375


def test_runs_failures_and_refinement(tmp_path):
    dataset = hand_made(tmp_path)
    failure = {"stage": "detector", "image_id": "a", "reason": "corrupt", "message": "cut"}
    dataset.write_failures("detector", "00000", [failure | {"key": None, "uri": None}])
    row = dict.fromkeys(ROUNDS.names) | {
        "round": 1, "subject": "merged-1", "measure": "AP", "value": 0.5, "images": 9, "decides": True,
        "accepted": True, "reason": "gain",
    }  # fmt: skip
    write_shard(dataset.store, "rounds/1/00000.parquet", pa.Table.from_pylist([row], ROUNDS), ROUNDS, {})
    (run,) = report(dataset, "runs")
    assert (run["stage"], run["images_per_second"]) == ("detector", 1.5)
    (failed,) = report(dataset, "failures")
    assert failed == {"stage": "detector", "reason": "corrupt", "failures": 1, "images": 1, "example": "cut"}
    assert report(dataset, "refinement")[0]["value"] == 0.5
    assert {r["what"]: r["n"] for r in report(dataset, "overview")}["failures"] == 1
    assert FAILURES.names[0] == "stage"


def test_what_is_absent_is_said(dataset):
    assert [row["what"] for row in report(dataset, "absent")] == ["more detailed texts"]


def test_every_report_says_what_it_is_and_what_its_rows_go_by(dataset):
    with connect(dataset) as connection:
        for name in report_names():
            query = find_report(name)
            assert query.title != name and query.description and query.key
            assert set(query.key) <= set(run_report(connection, name).column_names), name


def test_a_report_that_is_not_there_is_named():
    with pytest.raises(QueryError, match="no report 'table4'"):
        find_report("table4")


_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\s\w]|_")


@given(st.lists(st.text(alphabet="ab'’ .,!-é日9\n\t_", max_size=20), max_size=5))
def test_tokens_are_words_and_single_signs(texts):
    macros = (Path(find_report.__code__.co_filename).parent / "macros.sql").read_text()
    with duckdb.connect() as connection:
        connection.execute(macros)
        for text in texts:
            count = connection.execute("SELECT token_count(?)", [text]).fetchone()
            assert count == (len(_TOKEN.findall(text)),)


def test_dataset_sql_answers_in_arrow(dataset):
    rows = dataset.sql("SELECT source, count(*) AS n FROM statements GROUP BY 1 ORDER BY 1")
    assert isinstance(rows, pa.Table) and rows.num_rows == 7


def test_the_page_names_every_report_and_every_check():
    page = (Path(__file__).resolve().parents[1] / "docs" / "qa.md").read_text()
    named = set(re.findall(r"`(\w+)`", page))
    assert set(report_names()) | set(check_names()) <= named
