"""Measures as parts of each image: they add up to those of whole data sets, and chance is told by drawing again."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.quality.captions import caption_quality, captions_by_image
from data_engine.quality.cider import cider, cider_by_image
from data_engine.quality.detection import average_precision, f1_by_image
from data_engine.quality.grounding import grounding_quality, recall_by_image
from data_engine.quality.masks import iou_by_image, mask_quality
from data_engine.quality.selected import Labels, Selected
from data_engine.quality.shares import Shares, change, estimate
from data_engine.quality.text import exact_by_image, text_quality
from data_engine.quality.triplets import descriptions_by_image, phrases_by_image
from data_engine.recipe import FilterPart, Recipe, SpecialistPart
from data_engine.scenes.attributes import Reader
from data_engine.scenes.world import find_world
from data_engine.scenes.write import make_scenes
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocoevalcap")

# pycocotools hands its decoded masks to NumPy in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RATES = {
    "missed": 0.2, "invented": 0.2, "mislabelled": 0.2, "jittered": 0.3, "attribute_flipped": 0.4,
    "wrong_link": 0.2, "dropped_link": 0.1, "truncated": 0.2,
}  # fmt: skip

numbers = st.lists(st.tuples(st.floats(0, 5), st.floats(0.5, 5)), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Dataset:
    """Thirty scenes in three shards, a noisy copy of their truth, and verdicts that drop its small boxes."""
    folder = tmp_path_factory.mktemp("noisy")
    make_scenes(folder / "scenes", 30, 11, size=(160, 120), world=find_world("target"))
    ingest(str(folder / "scenes"), str(folder / "dataset"), shard_size=10)
    dataset = Dataset.open(str(folder / "dataset"))
    part = SpecialistPart(
        use="specialists.noise:Noise",
        needs=["truth"],
        args={"rates": RATES, "classes": list(find_world("target").class_names)},
    )
    small = FilterPart(use="filters.box_size:MinimumSide", args={"pixels": 20})
    recipe = Recipe(name="noisy", specialists={"noisy": part}, filters={"small": small})
    annotate(dataset, recipe, runner="inline")
    filter_dataset(dataset, recipe)
    return dataset


def of(rows) -> Shares:
    return Shares.of((f"image {n}", part, whole) for n, (part, whole) in enumerate(rows))


@given(numbers)
def test_an_interval_holds_no_value_that_no_image_has(rows):
    shares = of(rows)
    found = estimate(shares, draws=200)
    ratios = shares.part / shares.whole
    assert ratios.min() - 1e-9 <= found.low <= found.high <= ratios.max() + 1e-9
    assert math.isclose(found.value, sum(p for p, _ in rows) / sum(w for _, w in rows))


@given(numbers)
def test_labels_do_not_differ_from_themselves(rows):
    found = change(of(rows), of(reversed(rows)).at(of(rows).image_ids), draws=200)
    same = change(of(rows), of(rows), draws=200)
    assert (same.value, same.low, same.high) == (0, 0, 0) and found.low <= found.high


def test_the_interval_is_as_wide_as_the_arithmetic_says():
    rng = np.random.default_rng(1)
    right = rng.random(400) < 0.7
    found = estimate(of((float(r), 1.0) for r in right), draws=4000)
    deviation = math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert found.low == pytest.approx(right.mean() - 1.96 * deviation, abs=0.01)
    assert found.high == pytest.approx(right.mean() + 1.96 * deviation, abs=0.01)


def test_what_is_hard_for_both_cancels_out():
    """Each image alone decides whether either is right; one is right a little more often."""
    hard = np.arange(300) % 2 == 0
    before = of((0.0 if h else 1.0, 1.0) for h in hard)
    after = of((0.0 if h and n % 20 else 1.0, 1.0) for n, h in enumerate(hard))
    found = change(before, after)
    assert found.low > 0 and found.value == pytest.approx(0.05, abs=0.01)
    apart = estimate(after)
    assert apart.low < estimate(before).high


def test_images_that_one_side_does_not_know_count_nothing_there():
    left, right = Shares.of([("a", 1, 2)]), Shares.of([("b", 1, 1), ("a", 0, 0), ("b", 1, 3)])
    assert right.value == 0.5 and right.at(("a", "b", "c")).whole.tolist() == [0, 4, 0]
    assert math.isnan(Shares.of([]).value) and math.isnan(estimate(Shares.of([])).low)
    assert change(left, right, draws=100).value == 0


def test_parts_of_images_add_up_to_the_measures_of_whole_data_sets(noisy):
    ap = average_precision(noisy, "noisy", "truth", threshold=0)
    # The noise calls things by names that truth has too, so no detection is left out there.
    assert f1_by_image(noisy, "noisy", "truth").value == pytest.approx(ap.f1) and 0.3 < ap.f1 < 0.95
    reader = Reader()
    captions = caption_quality(noisy, "noisy", "truth", reader.judge)
    whole, phrases = captions_by_image(noisy, "noisy", "truth", reader.judge)
    assert phrases.value == pytest.approx(captions.phrases_true)
    assert whole.value == pytest.approx(captions.true * captions.texts / captions.images)
    assert cider_by_image(noisy, "noisy", "truth").value == pytest.approx(
        cider(noisy, "noisy", "truth").score
    )
    lines = text_quality(noisy, "noisy", "truth")
    assert exact_by_image(noisy, "noisy", "truth").value == pytest.approx(lines.exact.f1)


def test_parts_of_images_of_answers_about_truth(noisy):
    # Truth says all of itself: its own phrases and masks are answers about it.
    grounding = grounding_quality(noisy, "truth", "truth")
    recall = recall_by_image(noisy, "truth", "truth")
    assert recall.value == grounding.recall == 1 and recall.whole.sum() == grounding.phrases
    for kind in ("region", "phrase"):
        masks = mask_quality(noisy, "truth", "truth", kind)
        by_image = iou_by_image(noisy, "truth", "truth", kind)
        assert by_image.value == pytest.approx(masks.mean_iou) and by_image.whole.sum() == masks.truth


def test_truth_is_right_about_itself_and_noise_is_not(noisy):
    fitting = Reader().fitting
    assert phrases_by_image(noisy, "truth", "truth", fitting).value > 0.97
    assert descriptions_by_image(noisy, "truth", "truth", fitting).value == 1
    assert 0.2 < phrases_by_image(noisy, "noisy", "truth", fitting).value < 0.9
    assert 0.2 < descriptions_by_image(noisy, "noisy", "truth", fitting).value < 0.9


def say(folder: Path, source: str, annotations: list[Annotation], dataset: Dataset) -> None:
    rows = AnnotationRows(source)
    image_id = next(dataset.image_batches("00000", 1, ["image_id"]))["image_id"][0].as_py()
    assert not rows.add(image_id, annotations)
    for shard in dataset.shards:
        table = rows.table() if shard == "00000" else rows.table().slice(0, 0)
        dataset.write_annotations(source, shard, table, {"fingerprint": source})


@pytest.mark.parametrize(
    ("text", "span", "box", "right"),
    [
        ("a red star", (0, 10), (10, 10, 30, 30), 1),
        ("the red star", (0, 12), (11, 10, 30, 31), 1),
        ("a star", (0, 6), (10, 10, 30, 30), 1),
        ("a red star", (0, 10), (50, 50, 70, 70), 0),
        ("a blue star", (0, 11), (10, 10, 30, 30), 0),
        ("two red stars", (0, 13), (10, 10, 30, 30), 0),
        ("a red star", None, (10, 10, 30, 30), 0),
        ("a red star", (0, 1), (10, 10, 30, 30), 0),
    ],
)
def test_a_phrase_is_right_where_its_words_fit_what_its_box_shows(noisy, tmp_path, text, span, box, right):
    region = Annotation("region", "star", "phrase", box=(10, 10, 30, 30))
    described = Annotation("region", "small red star", "brief", region, box=(10, 10, 30, 30))
    say(tmp_path, "right", [region, described], noisy)
    caption = Annotation("text", text, "brief")
    said = [] if span is None else [Annotation("phrase", text[slice(*span)], None, caption, span, box)]
    say(tmp_path, "said", [caption, *said], noisy)
    found = phrases_by_image(noisy, "said", "right", Reader().fitting)
    assert (found.part.sum(), found.whole.sum()) == (right, 1)


def test_held_out_images_and_the_others_are_all_images(noisy):
    labels = {"kept": Labels(("noisy",), 0), "both": Labels(("noisy", "truth"))}
    inside, outside = (Selected(noisy, 0.4, labels, held_out=side) for side in (True, False))
    rows = {
        side: {name: sum(view.annotations(name, s).num_rows for s in view.shards) for name in ("noisy", "kept", "both", "truth")}
        for side, view in (("all", Selected(noisy, 0.0, labels, held_out=False)), ("in", inside), ("out", outside))
    }  # fmt: skip
    for name, count in rows["all"].items():
        assert rows["in"][name] + rows["out"][name] == count and rows["in"][name] > 0
    assert rows["all"]["kept"] < rows["all"]["noisy"] < rows["all"]["both"]
    f1 = [f1_by_image(view, "noisy", "truth") for view in (inside, outside)]
    assert len(f1[0].image_ids) + len(f1[1].image_ids) == 30
    ap = average_precision(inside, "noisy", "truth", threshold=0)
    assert ap.images == len(f1[0].image_ids) and asdict(ap)["predicted"] > 0


def test_images_that_calibrate_and_those_that_judge_are_the_held_out_ones(noisy):
    def images(view: Selected) -> set[str]:
        return {
            i
            for s in view.shards
            for b in view.image_batches(s, 9, ["image_id"])
            for i in b["image_id"].to_pylist()
        }

    judging, calibrating = Selected(noisy, 0.6, {}, beyond=0.3), Selected(noisy, 0.3, {})
    assert images(judging) and images(calibrating) and not images(judging) & images(calibrating)
    assert images(judging) | images(calibrating) == images(Selected(noisy, 0.6, {}))
