"""Thresholds of a merge: the sweep against trying everything, and what is found where truth is known."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation
from data_engine.class_names import ClassNames
from data_engine.errors import DatasetError
from specialists.merge_calibration import Calibration, Measured
from specialists.merge_examples import Examples, link_examples
from specialists.merge_hanging import Hanging, hanging_examples
from specialists.merge_matching import mean_box
from specialists.merge_rows import pages
from specialists.merge_settings import (
    ADD_ABOVE,
    DOUBT_LOCATED,
    DOUBT_NAMED,
    MEND,
    MOVE,
    RENAME,
    REPLACE,
    SHIFT,
    WEIGHT,
    MergeSettings,
)
from specialists.merge_sweep import first_claims, sweep
from specialists.merge_taught import taught_thresholds
from specialists.merge_texts import merge_texts
from specialists.merge_thresholds import _means, text_thresholds, thresholds_of
from specialists.merge_truth import best_truths, same_words, word_f1
from tests.merge_statements import table

value = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
worth = st.tuples(st.integers(0, 1), st.integers(0, 1)).map(lambda w: (max(w), w[1]))
example = st.tuples(value, worth, worth)


@given(
    st.lists(example, max_size=12), st.tuples(st.integers(0, 9), st.integers(0, 5)), st.integers(0, 9), value
)
def test_the_sweep_finds_the_best_of_all_thresholds(examples, fixed, truths, default):
    values = np.array([v for v, _, _ in examples], float)
    above = np.array([a for _, a, _ in examples], float).reshape(-1, 2)
    below = np.array([b for _, _, b in examples], float).reshape(-1, 2)

    def f1(threshold: float) -> float:
        lies_above = values >= threshold
        said, right = above[lies_above].sum(axis=0) + below[~lies_above].sum(axis=0) + fixed
        return 2 * right / (said + truths) if said + truths else 0.0

    threshold, found = sweep(values, above, below, fixed, truths, default)
    best = max(f1(t) for t in [*np.linspace(0, 1, 101), 2.0])
    assert found == pytest.approx(best) and f1(threshold) == pytest.approx(best)
    if f1(default) == pytest.approx(best):
        assert threshold == default


def test_of_several_statements_about_one_truth_the_surest_is_right():
    claims = first_claims(np.array([0.2, 0.9, 0.5, 0.7]), np.array([3, 3, -1, 1]))
    assert claims.tolist() == [0, 1, 0, 1]


corners = st.tuples(*[st.integers(0, 9).map(float)] * 4)
counts = st.sampled_from([0.0, 0.2, 1.0])


@given(st.lists(st.tuples(counts, corners, counts, corners), min_size=1, max_size=5), counts)
def test_weights_are_chosen_by_the_boxes_that_a_merge_makes(pairs, weight):
    agreed = np.array([(0.5, ours, *a, theirs, *b, 0, 0, 0, 0) for ours, a, theirs, b in pairs])
    made = [mean_box(np.array([a, b]), [ours, weight * theirs]) for ours, a, theirs, b in pairs]
    assert np.allclose(_means(agreed, weight), made)


def test_with_few_examples_thresholds_are_the_defaults():
    few = Examples(truths=5, added=[(0.2, 0), (0.3, 1)], kept=[(0.5, 0.5, 2, -2)], renamed=[(0.9, 3, -1)])
    assert thresholds_of(few, least=3) == ({}, {})
    values, counts = thresholds_of(few, least=1)
    assert values[ADD_ABOVE] < 0.2 and values[RENAME] == 0.5 and counts[ADD_ABOVE] == 2
    assert values[DOUBT_NAMED] == values[DOUBT_LOCATED] == 0.1
    assert MOVE not in values


def test_each_threshold_parts_right_from_wrong():
    found = Examples(truths=60, fixed=[0, 1])
    found.added = [(0.8 + i / 1000, i) for i in range(2, 12)] + [(0.6 + i / 1000, -1) for i in range(10)]
    found.kept = [(0.9, 0.7, i, -2) for i in range(12, 22)] + [(0.9, 0.3, -1, -2)] * 10
    found.kept += [(0.3, 0.9, -1, -2)] * 10 + [(float("nan"), float("nan"), 22, -2)] * 3
    found.renamed = [(0.2, 23, -1)] * 10 + [(0.1, -1, 24)] * 10
    found.near = [(0.3, 40 + i, -1) for i in range(10)] + [(0.2, -1, 50 + i) for i in range(10)]
    # Where the originals' place is unlikely the student's box is right, elsewhere the mean, if it counts 4 times.
    found.agreed = [(0.4, 1, 0, 0, 10, 90, 0.25, 0, 0, 10, 10, 0, 0, 10, 10)] * 10
    found.agreed += [(0.6, 1, 0, 0, 10, 10, 0.25, 0, 0, 10, 12, 0, 0, 10, 11)] * 90
    values, counts = thresholds_of(found, least=10)
    assert 0.609 < values[ADD_ABOVE] <= 0.802
    assert 0.3 < values[DOUBT_NAMED] <= 0.9 and 0.3 < values[DOUBT_LOCATED] <= 0.7
    assert 0.1 < values[RENAME] <= 0.2 and 0.2 < values[SHIFT] <= 0.3 and 0.4 < values[MOVE] <= 0.6
    assert values[WEIGHT] == 4
    assert counts == {
        ADD_ABOVE: 20, DOUBT_NAMED: 30, DOUBT_LOCATED: 30, RENAME: 20, SHIFT: 20, MOVE: 100, WEIGHT: 100,
    }  # fmt: skip


def test_texts_of_few_examples_share_a_threshold():
    bad, good = (0.004, 1.0, 0.0), (0.001, 0.0, 1.0)
    found = {
        (MEND, "text/brief"): [bad] * 3 + [good] * 4,
        (MEND, "text/detailed"): [bad, good],
        (REPLACE, "text/brief"): [(0.1, 1.0, 0.0)],
    }
    chosen, examples = text_thresholds(found, least=9)
    assert set(chosen) == {MEND}
    assert all(0.001 < value <= 0.004 for value in chosen[MEND].values())
    assert examples == {MEND: {"text/brief": 9, "text/detailed": 9}}
    chosen, examples = text_thresholds(found, least=7)
    assert examples == {MEND: {"text/brief": 7, "text/detailed": 9}}
    assert text_thresholds(found, least=10) == ({}, {})


shares = st.lists(st.floats(0, 1), min_size=5, max_size=40).map(sorted)


@given(shares, shares, st.floats(0, 1))
def test_on_images_that_were_learnt_from_the_same_share_lies_below(before, after, value):
    sides = ({(RENAME, "region"): np.array(side)} for side in (before, after))
    found = taught_thresholds({RENAME: {"region": value}, WEIGHT: {"region": 4}}, *sides, least=5)
    assert found[WEIGHT] == {"region": 4}
    threshold = found[RENAME]["region"]
    share = np.mean(np.array(before) < value)
    # As near as values that are equal, and a whole number of them, let it be.
    assert np.mean(np.array(after) < threshold) <= share + 0.5 / len(after) + 1e-9
    assert np.mean(np.array(after) <= threshold) >= share - 0.5 / len(after) - 1e-9


def test_of_too_few_values_no_share_is_known():
    chosen = {RENAME: {"region": 0.3, "phrase": 0.2}}
    few, many = np.array([0.1]), np.linspace(0, 1, 30)
    assert taught_thresholds(chosen, {(RENAME, "region"): few}, {(RENAME, "region"): many}, 5) == chosen
    assert taught_thresholds(chosen, {(RENAME, "region"): many}, {}, 5) == chosen


def test_a_phrase_is_its_words_without_its_article_or_the_end_of_longer_ones():
    assert same_words("a red star", "Red star") and same_words("the star", "a red star")
    assert not same_words("a red star", "a blue star") and not same_words("a cup", "a teacup")


def test_a_statement_is_right_about_the_truth_that_it_overlaps_most():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 18], [0, 0, 10, 10], [40, 40, 50, 50.0]])
    names = ["Cup", "cup", "star", "cup"]
    assert best_truths("region", names, boxes, [], ClassNames()).tolist() == [-1] * 4
    said = table("truth", [Annotation("region", "cup", "phrase", box=(0, 0, 10, h)) for h in (20, 11)])
    (page,) = pages(said, MergeSettings(["truth"], ["student"])).values()
    by_height = [row.box[3] for row in page.rows]
    found = best_truths("region", names, boxes, page.rows, ClassNames())
    assert [by_height[i] if i >= 0 else None for i in found.tolist()] == [11, 20, None, None]


def test_descriptions_are_left_out_where_the_student_has_better_ones():
    def described(source: str, text: str, named: float | None = None) -> pa.Table:
        region = Annotation("region", "cup", "phrase", box=(0, 0, 20, 20))
        said = [region, Annotation("region", text, "brief", region, box=(0, 0, 20, 20))]
        if named is not None:
            said += [Annotation("region", None, "named", said[1], score=named, source="doubt")]
        return table(source, said)

    settings = MergeSettings(["noisy"], ["student"], doubt="doubt")
    found: dict[str, Hanging] = {}
    for named, text, theirs in (
        (0.9, "a red cup", "a cup"),
        (0.2, "a cup", "a red cup"),
        (0.1, "a cup", "?"),
    ):
        said = pa.concat_tables([described("noisy", text, named), described("student", theirs)])
        (page,) = pages(said, settings).values()
        (true,) = pages(described("truth", "A red cup"), MergeSettings(["truth"], ["-"], [])).values()
        hanging_examples(page, true.rows, settings, found)
    (of,) = found.values()
    assert list(found) == ["region/brief"] and of.truths == 3
    right = [(round(named, 1), own, there, theirs) for named, own, there, theirs in of.rows]
    assert right == [(0.9, True, True, False), (0.2, False, True, True), (0.1, False, True, False)]
    assert 0.2 < of.threshold() <= 0.9


def test_each_text_should_point_at_what_it_speaks_of():
    place = (0, 0, 20, 20)

    def said(source: str, *granularities: str, linked: tuple[str, ...]) -> pa.Table:
        rows = []
        for granularity in granularities:
            text = Annotation("text", f"a red star, {granularity}", granularity)
            rows.append(text)
            if granularity in linked:
                rows.append(Annotation("phrase", "a red star", None, text, (0, 10), place, score=0.9))
        return table(source, rows)

    both = ("brief", "detailed")
    settings = MergeSettings(["noisy"], ["student"])
    noisy = said("noisy", *both, linked=("brief",))
    detailed = noisy.filter(pc.equal(noisy["granularity"], "detailed"))["annotation_id"][0].as_py()
    link = Annotation("phrase", "a red star", None, detailed, (0, 10), place, score=0.9)
    (page,) = pages(pa.concat_tables([noisy, table("student", [link])]), settings).values()
    (true,) = pages(said("truth", *both, linked=both), MergeSettings(["truth"], ["-"], [])).values()
    found: dict[str, Examples] = {}
    link_examples(page, merge_texts(page, settings), true.rows, settings, found)
    examples = found["phrase"]
    assert examples.truths == 2
    # The brief caption's phrase is right, and so is what the student adds to the detailed one: about another truth.
    ((_, _, kept, _),), ((_, added),) = examples.kept, examples.added
    assert {kept, added} == {0, 1}


def test_texts_are_compared_by_words_and_their_neighbours():
    assert word_f1("a red star", ["A red star"], []) == 1
    assert 0 < word_f1("a red star", ["a blue star"], []) < 0.7
    assert word_f1("", ["x"], []) == word_f1("x", [], []) == 0


def test_what_was_found_can_be_written_and_read():
    found = Calibration(
        {"add_above": {"phrase": 0.4}},
        {"add_above": {"phrase": 0.5}},
        0.1,
        {"add_above": {"phrase": 50}},
        (Measured("phrase", 0.5, 0.6, 0.7, 90),),
        12,
    )
    assert Calibration.from_json(found.to_json()) == found
    for text in ("[]", "{", json.dumps({"thresholds": {"add_above": {"phrase": 1}}})):
        with pytest.raises(DatasetError, match="no thresholds of a merge"):
            Calibration.from_json(text)
