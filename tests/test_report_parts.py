"""What a report is made of: charts, tables as text, texts cut at their phrases, masks as paths."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pycocotools.mask
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_engine.errors import ImageError, QueryError
from data_engine.qa.plots import MOST_SERIES, PLOTS, plot, series_left_out
from data_engine.qa.reports import run_report
from data_engine.query import connect
from pipelines.report.drawing import svg
from pipelines.report.grids import ROWS, grid
from pipelines.report.mask_path import GRID, mask_path
from pipelines.report.words import Piece, cut
from tests.qa_sets import hand_made


def test_charts_are_altair_s_and_draw_as_svg_without_style(tmp_path):
    dataset = hand_made(tmp_path)
    with connect(dataset) as connection:
        for name in set(PLOTS) - {"refinement"}:
            rows = run_report(connection, name)
            chart = plot(name, rows)
            assert "$schema" in chart.to_dict()
            drawn = svg(chart, "n", "What <it> is")
            assert drawn.startswith("<svg") and 'aria-label="What &lt;it&gt; is"' in drawn
            assert "currentColor" in drawn and "style=" not in drawn and "class=" not in drawn
        with pytest.raises(QueryError, match="has no chart"):
            plot("table2", rows)


def test_rounds_of_refinement_are_drawn():
    rows = [
        {"round": number, "subject": subject, "measure": measure, "value": 0.5, "low": 0.4, "high": 0.6,
         "decides": measure == "AP", "reason": "accepted"}
        for number in (1, 2) for subject in ("kept", f"merged-{number}") for measure in ("AP", "CIDEr")
    ]  # fmt: skip
    drawn = svg(plot("refinement", pa.Table.from_pylist(rows)), "n", "rounds")
    assert "AP (decides)" in drawn and "merged" in drawn and "merged-1" not in drawn


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_numbers_that_are_none_are_left_out_of_charts(value):
    funnel = {"round": 0, "filter": "a\x00<b>", "statements": 1, "percent": 100.0, "avg_value": value}
    assert "&lt;b&gt;" in svg(plot("funnel", pa.Table.from_pylist([funnel])), "n", "funnel")
    measured = {"round": 1, "subject": "kept", "measure": "AP", "value": value, "low": value, "high": 0.5,
                "decides": True, "reason": ""}  # fmt: skip
    assert "AP" in svg(plot("refinement", pa.Table.from_pylist([measured])), "n", "rounds")


@settings(max_examples=30)
@example("\x00\x01\x7f\ufffe\uffff")
@example("]]> <!-- &#0; &amp; <![CDATA[")
@given(st.text(max_size=20))
def test_any_name_can_be_drawn(name):
    """The library that draws panics at what XML cannot hold, which would end the process."""
    row = {"round": 0, "filter": name, "statements": 1, "percent": 100.0, "avg_value": None}
    assert svg(plot("funnel", pa.Table.from_pylist([row])), "n", "funnel").endswith("</svg>")


def test_of_many_series_the_largest_are_drawn():
    rows = pa.Table.from_pylist(
        [
            {"kind": "region-text", "granularity": f"g{n:02d}", "bin": 0, "low": 0.0, "high": 0.05, "boxes": n + 1}
            for n in range(MOST_SERIES + 3)
        ]
    )  # fmt: skip
    assert series_left_out("area", rows) == 3 and series_left_out("funnel", rows) == 0
    drawn = svg(plot("area", rows), "n", "sizes")
    assert "g14" in drawn and "g02" not in drawn


def test_series_whose_names_begin_alike_stay_apart():
    names = [f"{'long ' * 12}{n}" for n in range(3)]
    rows = [{"round": 0, "source": name, "judged": 2, "kept": 1, "percent": 50.0} for name in names]
    chart = plot("kept", pa.Table.from_pylist(rows)).to_dict()
    (values,) = [chart["data"]["values"]] if "values" in chart.get("data", {}) else chart["datasets"].values()
    labels = {row["series"] for row in values}
    assert len(labels) == 3 and max(map(len, labels)) <= 32


def test_long_tables_are_cut_and_say_so():
    made = grid(pa.table({"n": range(ROWS + 7), "fld5b_n": range(ROWS + 7), "t": ["x" * 999] * (ROWS + 7)}))
    assert len(made.rows) == ROWS and made.left_out == 7 and made.has_paper
    assert [column.name for column in made.columns] == ["n", "t"]
    assert "(999 characters)" in made.rows[0][1].text and made.rows[1][0].paper == "1"


def flat(pieces: list[Piece]) -> str:
    return "".join(piece.text + flat(piece.pieces) for piece in pieces)


@given(
    st.text(max_size=30),
    st.lists(st.tuples(st.integers(-2, 32), st.integers(-2, 32)), max_size=8),
)
def test_a_text_that_is_cut_is_the_same_text(text, spans):
    pieces, placed = cut(text, spans)
    assert flat(pieces) == text

    def groups(parts):
        for part in parts:
            if part.group is not None:
                start, end = spans[part.group]
                assert flat([part]) == text[start:end]
                yield part.group
            yield from groups(part.pieces)

    found = list(groups(pieces))
    assert set(found) == placed and len(found) == len(placed)
    whole = {i for i, (start, end) in enumerate(spans) if 0 <= start < end <= len(text)}
    assert placed <= whole and bool(placed) == bool(whole)


@given(st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_the_path_of_a_mask_covers_its_pixels(height, width, random):
    pixels = np.array(
        [[random.random() < 0.5 for _ in range(width)] for _ in range(height)], np.uint8, order="F"
    )
    rle = pycocotools.mask.encode(pixels)
    path = mask_path({"size": [height, width], "counts": rle["counts"].decode()})
    drawn = np.zeros_like(pixels)
    for x, y, h, w in re.findall(r"M(\d+) (\d+)v(\d+)h(\d+)v-\3z", path):
        drawn[int(y) : int(y) + int(h), int(x) : int(x) + int(w)] += 1
    assert (drawn == pixels).all()


def test_masks_that_are_none():
    large = pycocotools.mask.encode(np.asfortranarray(np.ones((1000, 700), np.uint8)))
    path = mask_path({"size": [1000, 700], "counts": large["counts"].decode()})
    assert path.count("M") <= GRID and path.count("v1000") == path.count("M") == 117
    for size, counts in [
        ([9, 9], "zzz"),
        ([9, 9], ""),
        ([0, 9], "0"),
        ([1 << 20, 1 << 20], "0"),
        ([9, 9], "é"),
    ]:
        with pytest.raises(ImageError):
            mask_path({"size": size, "counts": counts})
