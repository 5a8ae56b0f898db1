"""Fusion against a plain reference, what must hold whatever detectors say, and the rows that come of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.class_names import ClassNames
from data_engine.dataset import Dataset
from data_engine.errors import ImageError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.overlap import best_overlap, iou
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from specialists.box_fusion import agreement, strongest_first, weighted
from specialists.fusion import Fusion
from tests.toy_sources import write_pictures

SIDE = 64
IMAGE = Image("i" * 32, np.zeros((SIDE, SIDE, 3), np.uint8))

# Whole pixels and few places, so that overlaps, ties and repeated boxes come up often.
corner = st.tuples(st.integers(0, 40), st.integers(0, 40))
side = st.integers(4, 20)
box = st.builds(lambda c, w, h: (c[0], c[1], c[0] + w, c[1] + h), corner, side, side)
score = st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.625, 0.75, 1.0])
detection = st.tuples(box, score)
sources = st.lists(st.lists(detection, max_size=8), min_size=2, max_size=4)


def plain_iou(a, b) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def flat(found):
    """Boxes, scores and sources of detections by source, as arrays."""
    rows = [(b, s, i) for i, some in enumerate(found) for b, s in some]
    boxes = np.array([b for b, _, _ in rows], np.float64).reshape(-1, 4)
    return boxes, np.array([s for _, s, _ in rows], np.float64), np.array([i for _, _, i in rows], np.int64)


def reference(found, weights, threshold):
    """Weighted boxes fusion word by word: (box, score, members as (source, box, score)), one after another."""
    left = [(s * weights[i], b, s, i) for i, some in enumerate(found) for b, s in some]
    left.sort(key=lambda one: (-max(one[0], 1e-6), one[1]))
    clusters, means = [], []
    for one in left:
        best, at = threshold, None
        for number, mean in enumerate(means):
            if plain_iou(one[1], mean) > best:
                best, at = plain_iou(one[1], mean), number
        if at is None:
            clusters.append([one])
            means.append(one[1])
        else:
            clusters[at].append(one)
            total = sum(max(m[0], 1e-6) for m in clusters[at])
            means[at] = tuple(sum(max(m[0], 1e-6) * m[1][k] for m in clusters[at]) / total for k in range(4))
    answer = []
    for mean, members in zip(means, clusters, strict=True):
        best_of = [max((s for _, _, s, own in members if own == i), default=0) for i in range(len(weights))]
        score = sum(w * s for w, s in zip(weights, best_of, strict=True)) / sum(weights)
        answer.append((mean, score, len(members)))
    return answer


@given(
    sources,
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=4, max_size=4),
    st.sampled_from([0.3, 0.55, 0.7]),
)
def test_weighted_fusion_is_what_the_plain_reference_makes(found, weights, threshold):
    weights = weights[: len(found)]
    expected = reference(found, weights, threshold)
    made = weighted(*flat(found), np.array(weights), threshold)
    assert len(made.boxes) == len(expected)
    np.testing.assert_allclose(made.boxes, np.array([e[0] for e in expected]).reshape(-1, 4), atol=1e-9)
    np.testing.assert_allclose(made.scores, [e[1] for e in expected], atol=1e-9)
    assert np.bincount(made.of, minlength=len(expected)).tolist() == [e[2] for e in expected]


def test_the_papers_formula_where_each_model_has_one_box():
    # T boxes of N models, equal weights: the mean score times T / N; coordinates are means by score.
    found = [[((0, 0, 10, 10), 0.8)], [((0, 0, 12, 10), 0.4)], []]
    made = weighted(*flat(found), np.ones(3), 0.55)
    np.testing.assert_allclose(made.boxes, [[0, 0, (0.8 * 10 + 0.4 * 12) / 1.2, 10]])
    np.testing.assert_allclose(made.scores, [0.6 * 2 / 3])


def test_two_boxes_of_one_model_are_no_agreement():
    found = [[((0, 0, 10, 10), 0.8), ((0, 0, 10, 11), 0.8)], []]
    assert weighted(*flat(found), np.ones(2), 0.55).scores == pytest.approx([0.4])
    boxes, scores, by = flat(found)
    assert len(agreement(boxes, scores, scores, by, 0.65).boxes) == 0


@given(sources, st.randoms(use_true_random=False), st.sampled_from(["weighted", "agreement"]))
def test_the_order_of_sources_of_equal_weight_and_of_their_boxes_changes_nothing(found, random, method):
    shuffled = [random.sample(some, len(some)) for some in found]
    random.shuffle(shuffled)
    one, other = (fuse(some, method) for some in (found, shuffled))
    assert len(one) == len(other)
    for (b, s), (c, t) in zip(one, other, strict=True):
        assert b == pytest.approx(c) and s == pytest.approx(t)


def fuse(found, method):
    boxes, scores, by = flat(found)
    if method == "weighted":
        made = weighted(boxes, scores, by, np.ones(len(found)), 0.55)
    else:
        made = agreement(boxes, scores, scores, by, 0.65)
    return sorted(zip(made.boxes.round(6).tolist(), made.scores.round(6).tolist(), strict=True))


@given(st.lists(detection, max_size=12), st.integers(2, 4), st.sampled_from(["weighted", "agreement"]))
def test_fusing_a_set_with_itself_leaves_it(some, times, method):
    apart: list = []
    for b, s in some:  # as non-maximum suppression would leave it
        if all(plain_iou(b, c) <= 0.5 for c, _ in apart):
            apart.append((b, s))
    assert fuse([apart] * times, method) == sorted((list(map(float, b)), s) for b, s in apart)


@given(sources, st.lists(st.sampled_from([0.5, 1.0, 7.0]), min_size=4, max_size=4))
def test_scores_stay_in_0_to_1_and_no_box_is_lost_or_counted_twice(found, weights):
    boxes, scores, by = flat(found)
    made = weighted(boxes, scores, by, np.array(weights[: len(found)]), 0.55)
    assert ((made.scores >= 0) & (made.scores <= 1 + 1e-12)).all()
    assert (made.of >= 0).all() and set(made.of.tolist()) == set(range(len(made.boxes)))
    for number, fused in enumerate(made.boxes):  # a mean lies among what it is of
        own = boxes[made.of == number]
        assert (fused >= own.min(axis=0) - 1e-9).all() and (fused <= own.max(axis=0) + 1e-9).all()


@given(sources)
def test_what_agrees_is_a_box_of_one_source_that_another_has_too_and_none_is_forgotten(found):
    boxes, scores, by = flat(found)
    made = agreement(boxes, scores, scores, by, 0.65)
    for number, (fused, s) in enumerate(zip(made.boxes, made.scores, strict=True)):
        members = np.flatnonzero(made.of == number)
        own = [i for i in members if (boxes[i] == fused).all() and scores[i] == s]
        assert own and len(set(by[members])) >= 2
        assert all(plain_iou(fused, boxes[i]) >= 0.65 for i in members)
    for i in range(len(boxes)):
        for j in range(i):
            if by[i] != by[j] and plain_iou(boxes[i], boxes[j]) >= 0.65:
                assert made.of[i] >= 0 or made.of[j] >= 0


@given(st.lists(box, max_size=10), st.lists(box, max_size=10))
def test_overlaps_are_those_of_plain_arithmetic(some, others):
    a, b = (np.array(boxes, np.float64).reshape(-1, 4) for boxes in (some, others))
    expected = np.array([[plain_iou(x, y) for y in others] for x in some]).reshape(len(some), len(others))
    np.testing.assert_allclose(iou(a, b), expected)
    np.testing.assert_allclose(best_overlap(a, b), expected.max(axis=1, initial=0))


# --- The specialist ---------------------------------------------------------------------------------


def said(image_id: str = IMAGE.image_id, **by_source: list[tuple]) -> pa.Table:
    """Regions by source: (name, box) or (name, box, score)."""
    tables = []
    for source, regions in by_source.items():
        rows = AnnotationRows(source)
        annotations = [
            Annotation("region", r[0], "phrase", box=r[1], score=r[2] if r[2:] else None) for r in regions
        ]
        assert rows.add(image_id, annotations, (SIDE, SIDE)) == []
        tables.append(rows.table())
    return pa.concat_tables(tables)


def regions(answer) -> list[tuple]:
    return [(a.text, tuple(np.round(a.box, 4)), None if a.score is None else round(a.score, 4)) for a in answer
            if isinstance(a, Annotation) and a.granularity == "phrase"]  # fmt: skip


def test_each_fused_region_is_followed_by_a_row_for_each_row_that_it_was_made_from():
    table = said(
        a=[("cup", (0, 0, 10, 10), 0.5)], b=[("Cup ", (0, 0, 10, 11), 0.75), ("dog", (30, 30, 50, 50), 0.5)]
    )
    ids = dict(zip(table["text"].to_pylist(), table["annotation_id"].to_pylist(), strict=True))
    (answer,) = Fusion(detectors=["a", "b"])([IMAGE], table)
    assert regions(answer) == [("Cup ", (0, 0, 10, 10.6), 0.625), ("dog", (30, 30, 50, 50), 0.25)]
    cup, first, second, dog, third = answer
    assert [(m.kind, m.granularity, m.text, m.box) for m in (first, second, third)] == [
        ("region", "member", ids[name], None) for name in ("Cup ", "cup", "dog")
    ]
    assert first.parent is cup and second.parent is cup and third.parent is dog
    rows = AnnotationRows("fused")
    assert rows.add(IMAGE.image_id, answer, (SIDE, SIDE)) == []


def test_names_of_one_class_are_fused_under_the_first():
    table = said(a=[("Person", (0, 0, 10, 10), 0.5)], b=[("pedestrian", (0, 0, 10, 10), 0.5)])
    same = {"person": ["human", "Pedestrian"]}
    assert regions(Fusion(["a", "b"], same=same)([IMAGE], table)[0]) == [("person", (0, 0, 10, 10), 0.5)]
    assert len(regions(Fusion(["a", "b"])([IMAGE], table)[0])) == 2
    anyway = Fusion(["a", "b"], "agreement", by_label=False)([IMAGE], table)[0]
    assert [r[1:] for r in regions(anyway)] == [((0, 0, 10, 10), 0.5)]


def test_a_name_of_two_classes_is_refused():
    with pytest.raises(RecipeError, match=r"'Man' is a name of 'person' and of 'figure'"):
        ClassNames({"person": ["man"], "figure": ["Man"]})


def test_detectors_of_one_make_do_not_confirm_each_other():
    same_box = [("cup", (0, 0, 10, 10), 0.5)]
    makes = {"small": "yolo", "large": "yolo"}
    fusion = Fusion(["small", "large", "other"], "agreement", architectures=makes)
    assert regions(fusion([IMAGE], said(small=same_box, large=same_box))[0]) == []
    assert len(regions(fusion([IMAGE], said(small=same_box, other=same_box))[0])) == 1


def test_weights_draw_boxes_and_scores_to_the_better_detector():
    table = said(a=[("cup", (0, 0, 10, 10), 0.5)], b=[("cup", (0, 0, 12, 10), 0.5)])
    (row,) = regions(Fusion({"a": 3, "b": 1})([IMAGE], table)[0])
    assert row == ("cup", (0, 0, 10.5, 10), 0.5)
    alone = Fusion({"a": 3, "b": 1})([IMAGE], said(a=[("cup", (0, 0, 10, 10), 0.5)]))[0]
    assert regions(alone)[0][2] == 0.375


def test_without_any_score_there_is_none_and_with_some_the_others_count_as_told():
    unscored, scored = [("cup", (0, 0, 10, 10))], [("cup", (0, 0, 10, 10), 0.5)]
    for method in ("weighted", "agreement"):
        assert regions(Fusion(["a", "b"], method)([IMAGE], said(a=unscored, b=unscored))[0])[0][2] is None
    assert regions(Fusion(["a", "b"])([IMAGE], said(a=unscored, b=scored))[0])[0][2] == 0.75
    assert regions(Fusion(["a", "b"], unscored=0.25)([IMAGE], said(a=unscored, b=scored))[0])[0][2] == 0.375


def test_only_detections_are_fused_and_only_those_of_the_detectors():
    region = Annotation("region", "cup", "phrase", box=(0, 0, 10, 10), score=0.5)
    rows = AnnotationRows("a")
    other = [
        Annotation("region", "a cup", "brief", region, box=(0, 0, 10, 10)),
        Annotation(
            "region", parent=region, box=(0, 0, 10, 10), mask={"size": [SIDE, SIDE], "counts": "0PP4"}
        ),
        Annotation("region", "EXIT", "ocr", box=(0, 0, 10, 10)),
        Annotation("region", None, "proposal", box=(0, 0, 10, 10)),
        Annotation("text", "a cup", "brief"),
    ]
    assert rows.add(IMAGE.image_id, [region, *other]) == []
    table = pa.concat_tables([rows.table(), said(human=[("cup", (0, 0, 10, 10))])])
    assert regions(Fusion(["a", "b"])([IMAGE], table)[0]) == [("cup", (0, 0, 10, 10), 0.25)]


def test_images_are_fused_apart_and_in_their_order_whatever_the_order_of_rows():
    other = Image("j" * 32, IMAGE.pixels)
    cup, dog = [("cup", (0, 0, 10, 10), 0.5)], [("dog", (0, 0, 10, 10), 0.5)]
    table = pa.concat_tables([said("j" * 32, a=dog), said(a=cup, b=cup), said("j" * 32, b=dog)])
    first, second, nothing = Fusion(["a", "b"])([IMAGE, other, Image("k" * 32, IMAGE.pixels)], table)
    assert [r[0] for r in regions(first)] == ["cup"] and [r[0] for r in regions(second)] == ["dog"]
    assert nothing == []


def test_thousands_of_boxes_are_cut_to_the_strongest_and_the_rest_counted():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (6000, 2))
    many = [
        ("cup", (x, y, x + 9, y + 9), s)
        for (x, y), s in zip(low.tolist(), rng.uniform(0, 1, 6000).tolist(), strict=True)
    ]
    table = said(a=many[:3000], b=many[3000:])
    (answer,) = Fusion(["a", "b"], max_boxes=500)([IMAGE], table)
    members = [a.text for a in answer if isinstance(a, Annotation) and a.granularity == "member"]
    order = strongest_first(np.array([m[1] for m in many]), np.array([m[2] for m in many]))
    ids = np.array(table["annotation_id"].to_pylist())
    assert sorted(members) == sorted(ids[order[:500]].tolist())
    (error,) = [a for a in answer if isinstance(a, ImageError)]
    assert (error.reason, error.message) == (
        "too_many",
        "the 5,500 weakest of 6,000 boxes were left out of the fusion",
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"detectors": ["a"]}, "two or more"),
        ({"detectors": ["a", "a"]}, "two or more"),
        ({"detectors": "ab"}, "two or more"),
        ({"detectors": {"a": 1, "b": 0}}, "weight"),
        ({"detectors": {"a": 1, "b": float("nan")}}, "weight"),
        ({"detectors": ["a", "b"], "method": "nms"}, "no method"),
        ({"detectors": ["a", "b"], "iou": 1.5}, "iou"),
        ({"detectors": ["a", "b"], "max_boxes": 0}, "max_boxes"),
        ({"detectors": ["a", "b"], "method": "agreement", "architectures": {"c": "x"}}, "'c'"),
        ({"detectors": ["a", "b"], "architectures": {"a": "x"}}, "agreement"),
    ],
)  # fmt: skip
def test_args_that_make_no_sense_are_refused(args, message):
    with pytest.raises(RecipeError, match=message):
        Fusion(**args)


def test_a_misspelt_detector_ends_the_run_instead_of_lowering_scores():
    with pytest.raises(SpecialistError, match="'b' is needed, but none of the `detectors` a, bb"):
        Fusion(["a", "bb"])([IMAGE], said(b=[("cup", (0, 0, 10, 10), 0.5)]))
    with pytest.raises(SpecialistError, match="nothing to fuse"):
        Fusion(["a", "b"])([IMAGE], None)


def test_in_a_recipe_sql_lists_the_members_of_every_fused_box(tmp_path: Path):
    write_pictures(tmp_path / "pictures", 5, (SIDE, SIDE))
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=2)
    dataset = Dataset.open(str(tmp_path / "ds"))
    toy = "tests.toy_statements:Boxes"
    recipe = Recipe(
        name="fused",
        specialists={
            "a": SpecialistPart(use=toy, args={"boxes": [["cup", 0, 0, 10, 10, 0.5]]}),
            "b": SpecialistPart(use=toy, args={"boxes": [["cup", 0, 0, 10, 12, 0.5], ["dog", 20, 20, 40, 40, 0.5]]}),
            "fused": SpecialistPart(
                use="specialists.fusion:Fusion", args={"detectors": ["a", "b"]}, needs=["a", "b"], batch=2
            ),
        },
    ).check()  # fmt: skip
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    rows = sql(
        dataset,
        "SELECT text, score, member_source, member_text, member_box[4] AS bottom, count(*) AS n FROM members "
        "WHERE source = 'fused' GROUP BY ALL ORDER BY ALL",
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("cup", 0.5, "a", "cup", 10, 5),
        ("cup", 0.5, "b", "cup", 12, 5),
        ("dog", 0.25, "b", "dog", 40, 5),
    ]
    # The other views, and everything that reads detections, see the fused regions and no member.
    (counts,) = sql(
        dataset,
        "SELECT (SELECT count(*) FROM regions WHERE source = 'fused') AS regions, "
        "(SELECT count(*) FROM texts) + (SELECT count(*) FROM scores) + (SELECT count(*) FROM masks) "
        "+ (SELECT count(*) FROM triplets) AS others, (SELECT count(*) FROM failures) AS failures",
    ).to_pylist()
    assert counts == {"regions": 10, "others": 0, "failures": 0}


@pytest.mark.slow
def test_on_photos_two_sizes_of_a_detector_fused_are_printed_beside_each(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.photos import figures

    found = figures(
        shared / "data" / "photos", shared / "weights" / "yolo26n.pt", [640, 800], tmp_path / "ds"
    )
    with capsys.disabled():
        print(
            "", *(f"{name:<10} AP {ap:.4f} AP50 {ap50:.4f}" for name, (ap, ap50) in found.items()), sep="\n"
        )
    small, large = found["yolo-640"], found["yolo-800"]
    for fused in (found["weighted"], found["agreement"]):
        assert fused[0] > min(small[0], large[0])
    assert found["weighted"][1] > max(small[1], large[1])
