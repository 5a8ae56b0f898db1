"""Filters of boxes against plain references (torchvision's nms, loops), whatever detectors say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.box_pairs import best_first, groups_of, overlapping
from data_engine.errors import RecipeError
from data_engine.recipe import FilterPart
from data_engine.schema import ANNOTATIONS
from data_engine.verdicts import Judge
from filters.confirmed import Confirmed
from filters.most_boxes import MostBoxes
from filters.nms import Nms
from filters.sane_box import SaneBox
from filters.score import MinimumScore
from filters.soft_nms import SoftNms, soften

corners = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
detections = st.lists(
    st.tuples(
        st.sampled_from("ij"),  # image
        st.sampled_from(["cup", "dog"]),
        st.sampled_from(["a", "b", "human"]),
        corners,
        st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, None]),
    ),
    max_size=30,
)


def table(found: Sequence[tuple[str, str, str, Sequence[float], float | None]]) -> pa.Table:
    """Rows of detections, one each, in their order."""
    rows = [
        {
            "annotation_id": f"{number:032x}",
            "image_id": image * 32,
            "kind": "region",
            "granularity": "phrase",
            "text": text,
            "box": list(box),
            "score": score,
            "source": source,
            "round": 0,
        }
        for number, (image, text, source, box, score) in enumerate(found)
    ]
    return pa.Table.from_pylist(rows, schema=ANNOTATIONS)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """In single precision, as torchvision compares it with a threshold; for coordinates that are whole numbers."""
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(np.float32(shared) / np.float32(union))


@given(detections, st.sampled_from([0.0, 0.3, 0.5, 0.7]), st.booleans(), st.booleans())
def test_suppression_is_torchvision_s_box_for_box(found, threshold, by_class, by_source):
    torch = pytest.importorskip("torch")
    from torchvision.ops import nms

    kept = Nms(threshold, by_class, by_source, above=())(table(found)).to_pylist()
    groups: dict[Any, list[int]] = {}
    for number, (image, text, source, *_) in enumerate(found):
        key = (image, text if by_class else "", source if by_source else "")
        groups.setdefault(key, []).append(number)
    for rows in groups.values():
        boxes = torch.tensor([found[i][3] for i in rows], dtype=torch.float32)
        scores = torch.tensor([1.0 if found[i][4] is None else found[i][4] for i in rows])
        expected = {rows[i] for i in nms(boxes, scores, threshold).tolist()}
        assert {i for i in rows if kept[i]} == expected


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from([0.3, 0.5, 0.7]))
@settings(max_examples=30, deadline=None)
def test_suppression_of_crowds_is_torchvision_s(seed, count, threshold):
    torch = pytest.importorskip("torch")
    from torchvision.ops import nms

    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 40, (count, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32) / count
    said = table([("i", "cup", "a", box.tolist(), float(s)) for box, s in zip(boxes, scores, strict=True)])
    kept = np.flatnonzero(Nms(threshold)(said).to_numpy(zero_copy_only=False))
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).numpy()
    assert kept.tolist() == sorted(expected.tolist())


def test_a_long_chain_of_boxes_is_followed_to_its_end():
    # Each takes out the next one only, so that every second one stays: no shortcut decides many at once.
    chain = [("i", "cup", "a", (4.0 * n, 0, 4.0 * n + 10, 10), 1 - n / 300) for n in range(200)]
    assert Nms(0.4)(table(chain)).to_pylist() == [n % 2 == 0 for n in range(200)]


def test_people_s_boxes_win_whatever_the_score_and_other_rows_stay():
    box, near = (0, 0, 10, 10), (0, 0, 10, 9)
    said = table(
        [
            ("i", "cup", "a", box, 0.99),
            ("i", "cup", "human", near, None),
            ("i", "dog", "a", box, 0.2),
            ("i", "cup", "a", near, float("nan")),
        ]
    )
    assert Nms(0.5)(said).to_pylist() == [False, True, True, False]
    assert Nms(0.5, by_class=False)(said).to_pylist() == [False, True, False, False]
    assert Nms(0.5, by_source=True)(said).to_pylist() == [True, True, True, False]
    rows = AnnotationRows("s")
    rows.add("i" * 32, [
        first := Annotation("region", "cup", "phrase", box=box, score=0.9),
        Annotation("region", "red cup", "brief", parent=first, box=box),
        Annotation("region", "EXIT", "ocr", box=box, score=0.1),
        Annotation("text", "a cup", "brief"),
    ])  # fmt: skip
    for rule in (Nms(), SoftNms(0.5), MostBoxes(1), SaneBox(), Confirmed(trusted=["s"])):
        assert rule(with_sizes(rows.table(), 20, 20)).to_pylist() == [True] * 4


def in_single_precision(a, b):
    """The IoU of two boxes as the filter calculates it: where scores tie, a last digit decides which is the better box."""
    one, other = np.array(a, np.float32), np.array(b, np.float32)
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    union = (one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared
    return np.float64(shared / union if union > 0 else 0)


TIED = [
    ("j", "cup", "a", (1.0, 3.0, 2.0, 6.0), 0.1),
    ("j", "cup", "a", (1.0, 3.0, 2.0, 6.0), 0.1),
    ("j", "cup", "a", (1.0, 3.0, 2.0, 4.0), 0.1),
    ("j", "cup", "a", (1.0, 3.0, 2.0, 4.0), 0.1),
]
"""Scores that are equal but for their last digits, after some were lowered."""


@given(detections, st.sampled_from([0.2, 0.5]))
@example([("i", "cup", "a", (0.0, 0.0, 1.0, 1.0), 0.1), *TIED], 0.5)
@example(TIED, 0.5)
def test_soft_suppression_is_the_paper_s_loop(found, sigma):
    rows = table(found)
    lowered = soften(
        np.array([d[3] for d in found], np.float32).reshape(-1, 4),
        np.array([1.0 if d[4] is None else d[4] for d in found], np.float32),
        groups_of(rows["image_id"], rows["text"]) if found else np.zeros(0, np.int64),
        sigma,
    )
    for image in "ij":
        for text in ("cup", "dog"):
            left = [i for i, d in enumerate(found) if d[:2] == (image, text)]
            scores = {i: np.float64(np.float32(1.0 if found[i][4] is None else found[i][4])) for i in left}
            while left:
                best = max(left, key=lambda i: (scores[i], -i))
                left.remove(best)
                assert lowered[best] == pytest.approx(scores[best], rel=1e-5)
                for i in left:
                    overlap = in_single_precision(found[i][3], found[best][3])
                    assert overlap == pytest.approx(iou(found[i][3], found[best][3]), abs=1e-5)
                    scores[i] *= np.exp(np.array([-(overlap**2) / sigma]))[0]


def test_what_soft_suppression_lowers_below_the_minimum_falls_with_the_lowered_score():
    said = table([("i", "cup", "a", (0, 0, 10, 10), 0.9), ("i", "cup", "a", (0, 0, 10, 10), 0.8)])
    rule = SoftNms(0.3)
    assert rule(said).to_pylist() == [True, False]
    assert rule.values(said).to_pylist() == [pytest.approx(0.9), pytest.approx(0.8 * math.exp(-2), rel=1e-5)]


@given(detections, st.integers(1, 4), st.booleans(), st.booleans())
def test_the_best_boxes_of_each_image_stay(found, most, by_class, by_source):
    kept = MostBoxes(most, by_class, by_source)(table(found)).to_pylist()
    key = lambda d: (d[0], d[1] if by_class else "", d[2] if by_source else "")  # noqa: E731
    for group in {key(d) for d in found}:
        rows = [i for i, d in enumerate(found) if key(d) == group]
        best = sorted(rows, key=lambda i: (-(1.0 if found[i][4] is None else found[i][4]), i))[:most]
        assert {i for i in rows if kept[i]} == set(best)


@given(detections, st.sampled_from([0.3, 0.65]), st.booleans())
def test_what_no_other_source_has_falls(found, threshold, by_class):
    rule = Confirmed(threshold, by_class)
    kept, others = rule(table(found)).to_pylist(), rule.values(table(found)).to_pylist()
    for i, (image, text, source, box, _) in enumerate(found):
        having = {
            d[2]
            for d in found
            if d[2] != source
            and d[0] == image
            and (d[1] == text or not by_class)
            and iou(box, d[3]) > threshold
        }
        assert others[i] == len(having)
        assert kept[i] == (bool(having) or source == "human")


def test_a_sure_box_and_a_trusted_source_need_nobody():
    said = table([("i", "cup", "a", (0, 0, 9, 9), 0.95), ("i", "cup", "b", (30, 0, 39, 9), 0.5)])
    assert Confirmed()(said).to_pylist() == [False, False]
    assert Confirmed(unless_score=0.9)(said).to_pylist() == [True, False]
    assert Confirmed(trusted=["b"])(said).to_pylist() == [False, True]
    people = table([("i", "Human", "a", (0, 0, 9, 9), 0.9), ("i", "person", "b", (0, 0, 9, 9), 0.5)])
    assert Confirmed(same={"person": ["human"]})(people).to_pylist() == [True, True]


def with_sizes(rows: pa.Table, width: int, height: int) -> pa.Table:
    for name, value in (("image_width", width), ("image_height", height)):
        rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.int32()))
    return rows


@pytest.mark.parametrize(
    ("box", "sane"),
    [
        ((10, 10, 30, 30), True),
        ((0, 0, 100, 50), True),
        ((0, 0, 100.5, 50), True),  # within the margin
        ((0, 0, 103, 50), False),
        ((-4, 0, 50, 50), False),
        ((10, 10, 10, 30), False),
        ((30, 10, 10, 30), False),
        ((0, 10, 100, 12), False),  # 50 to 1
        ((math.nan, 0, 10, 10), False),
        ((0, 0, math.inf, 10), False),
        ((-3e38, -3e38, 3e38, 3e38), False),
    ],
)
def test_boxes_that_can_be_no_thing_fall(box, sane):
    said = with_sizes(table([("i", "cup", "a", box, 0.5)]), 100, 50)
    assert SaneBox()(said).to_pylist() == [sane]


def test_sizes_are_shares_of_the_image():
    said = with_sizes(
        table([("i", "cup", "a", (0, 0, 100, 50), 0.5), ("i", "cup", "a", (0, 0, 10, 5), 0.5)]), 100, 50
    )
    assert SaneBox(maximum_area=0.95)(said).to_pylist() == [False, True]
    assert SaneBox(minimum_area=0.02)(said).to_pylist() == [True, False]
    assert SaneBox().values(said).to_pylist() == [1.0, pytest.approx(0.01)]


def test_a_score_may_be_asked_for_by_source_and_by_class():
    box = (0, 0, 9, 9)
    said = table(
        [("i", "cup", "a", box, 0.5), ("i", "CUP", "b", box, 0.5), ("i", "dog", "b", box, 0.5), ("i", "dog", "a", box, 0.7),
         ("i", "dog", "a", box, float("nan")), ("i", "dog", "a", box, None)]
    )  # fmt: skip
    assert MinimumScore(0.7)(said).to_pylist() == [False, False, False, True, False, True]
    assert MinimumScore(0.7, {"b": 0.4})(said).to_pylist() == [False, True, True, True, False, True]
    assert MinimumScore(0.7, {"b": 0.4}, {"Cup": 0.6})(said).to_pylist() == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    with pytest.raises(RecipeError, match="twice"):
        MinimumScore(0.5, by_class={"cup": 0.5, "Cup": 0.6})


@pytest.mark.parametrize(
    "build",
    [
        lambda: Nms(1.0),
        lambda: SoftNms(2),
        lambda: SoftNms(0.5, sigma=0),
        lambda: SaneBox(minimum_area=0.5, maximum_area=0.1),
        lambda: MostBoxes(0),
        lambda: Confirmed(-0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused(build):
    with pytest.raises(RecipeError) as caught:
        build()
    assert caught.value.hint


@pytest.mark.parametrize(
    "rule", [Nms(), SoftNms(0.5), SaneBox(), MostBoxes(), Confirmed(), MinimumScore(0.5)]
)
def test_no_rows_and_rows_without_scores_are_no_trouble(rule):
    empty = with_sizes(ANNOTATIONS.empty_table(), 1, 1)
    assert rule(empty).to_pylist() == [] and len(rule.values(empty)) == 0
    said = with_sizes(table([("i", "cup", "human", (0, 0, 9, 9), None)] * 1), 10, 10)
    assert rule(said).to_pylist() == [True]


@given(detections, st.sampled_from([0.0, 0.5]))
def test_pairs_are_those_that_a_loop_finds(found, threshold):
    rows = table(found)
    groups = groups_of(rows["image_id"]) if found else np.zeros(0, np.int64)
    boxes = np.array([d[3] for d in found], np.float32).reshape(-1, 4)
    order = np.random.default_rng(len(found)).permutation(len(found))
    first, second = overlapping(boxes, groups, order, threshold)
    place = {row: i for i, row in enumerate(order.tolist())}
    expected = {
        (i, j)
        for i in range(len(found))
        for j in range(len(found))
        if place[i] < place[j] and found[i][0] == found[j][0] and iou(found[i][3], found[j][3]) > threshold
    }
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1, 1, width=32)), max_size=40), st.booleans())
def test_rows_are_put_group_by_group_and_the_best_first(rows, far_apart):
    groups = np.array([group << 60 if far_apart else group for group, _ in rows], np.int64)
    scores = np.array([score for _, score in rows], np.float32)
    expected = sorted(range(len(rows)), key=lambda i: (groups[i], -scores[i], i))
    assert best_first(groups, scores).tolist() == expected


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from("ij")), max_size=40))
def test_groups_are_those_of_equal_values(rows):
    first, second = ([row[i] for row in rows] for i in (0, 1))
    # In runs, as the rows of an image stand, and each by itself.
    for times in (1, 5):
        columns = [pa.array([v for v in side for _ in range(times)], pa.string()) for side in (first, second)]
        numbers = groups_of(*columns).tolist()
        values = list(zip(*(column.to_pylist() for column in columns), strict=True))
        assert len(set(zip(numbers, values, strict=True))) == len(set(numbers)) == len(set(values))


@given(detections)
def test_the_columns_that_a_filter_names_are_all_that_it_looks_at(found):
    sizes = pa.table({"image_id": ["i" * 32, "j" * 32], "width": [20, 15], "height": [20, 18]})
    said = table(found)
    for rule in (Nms(), SoftNms(0.4), SaneBox(), MostBoxes(2), MinimumScore(0.3, {"b": 0.6}, {"dog": 0.2})):
        narrow = Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": rule})
        every = Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": _all_columns(rule)})
        assert "mask" not in narrow.columns and every.columns == ANNOTATIONS.names
        assert narrow(said.select(narrow.columns), 0, sizes) == every(said, 0, sizes)


def _all_columns(rule: Any) -> Any:
    """The same filter, that does not say which columns it looks at."""

    class Plain:
        image_columns = getattr(rule, "image_columns", ())

        def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
            return rule(annotations)

        def values(self, annotations: pa.Table) -> pa.Array:
            return rule.values(annotations)

    return Plain()
