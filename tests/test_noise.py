"""Noise: it makes the errors it was asked for, as often as asked, and its labels tell every one of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError
from data_engine.ingest.run import ingest
from data_engine.noise.apply import labels, noisy
from data_engine.noise.boxes import MIN_SPLIT, MOST_OVERLAP, iou
from data_engine.noise.donors import donor_bank
from data_engine.noise.edits import Edit, edited, exchanged, moved_span
from data_engine.noise.model import (
    BOX_CHANGES,
    CAPTION_CHANGES,
    CHANGES,
    PHRASE_CHANGES,
    REANCHORED,
    noise_model,
)
from data_engine.query import sql
from data_engine.recipe import FilterPart, read_recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import make_scene
from data_engine.scenes.write import make_scenes
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset
from specialists.noise import Noise, NoiseLabels

# pycocotools.mask.decode, written before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SIZE = (160, 120)
DOC = Path(__file__).resolve().parents[1] / "docs" / "noise.md"
DONORS = [
    "A purple kite.",
    "A purple kite over two old mills.",
    "Ten purple kites fly over the hills. One has lost its string. The sky is clear and the wind is strong.",
]
CLASSES = ["alpha", "beta", "gamma"]
ALL_RATES = dict.fromkeys((*BOX_CHANGES, *PHRASE_CHANGES, *CAPTION_CHANGES), 0.3)


def model(rates: dict[str, float] | None = None, **more: Any):
    return noise_model({"rates": rates or {}, "classes": CLASSES, "donors": DONORS, **more})


def as_rows(image_id: str, annotations: list[Annotation]) -> list[dict[str, Any]]:
    store = AnnotationRows("truth")
    assert store.add(image_id, annotations) == []
    return store.table().to_pylist()


@pytest.fixture(scope="module")
def scenes() -> list[list[dict[str, Any]]]:
    """The true rows of one scene after the other."""
    return [as_rows(f"{index:032x}", list(make_scene(0, index, SIZE).annotations)) for index in range(100)]


@pytest.fixture(scope="module")
def crowds() -> list[list[dict[str, Any]]]:
    """Images with many boxes of three classes and no text: more chances than scenes give."""
    rng = np.random.default_rng(1)
    pages = []
    for index in range(250):
        annotations: list[Annotation] = []
        for _ in range(12):
            (w, h), (x, y) = rng.uniform(3, 30, 2), rng.uniform(0, 90, 2)
            name = CLASSES[int(rng.integers(3))]
            region = Annotation("region", name, "phrase", box=(x, y, x + w, y + h))
            annotations += [
                region,
                Annotation("region", f"a small {name}", "brief", parent=region, box=region.box),
            ]
        pages.append(as_rows(f"c{index}", annotations))
    return pages


def content(row: dict[str, Any] | Annotation) -> tuple[Any, ...]:
    """What a row says, without who says it and what it hangs on."""
    get = row.get if isinstance(row, dict) else lambda name: getattr(row, name)
    mask = get("mask")
    numbers = [None if get(n) is None else tuple(float(v) for v in get(n)) for n in ("span", "box", "quad")]
    return (
        get("kind"),
        get("granularity"),
        get("text"),
        *numbers,
        None if mask is None else (tuple(mask["size"]), mask["counts"]),
        get("score"),
    )


def is_thing(row: dict[str, Any]) -> bool:
    return row["kind"] == "region" and row["parent_id"] is None and row["granularity"] != "ocr"


def is_caption(row: dict[str, Any]) -> bool:
    return row["kind"] == "text" and row["granularity"] in ("brief", "detailed", "more_detailed")


def is_link(row: dict[str, Any]) -> bool:
    return row["kind"] == "phrase" and row["text"] is not None


def told(made, rows, change: str, of=is_thing) -> int:
    """How many true rows that `of` selects, or their copies, have the change; a pair of split parts is one."""
    true = {row["annotation_id"] for row in rows if of(row)}
    lost = sum(one.annotation_id in true and one.change == change for one in made.lost)
    noisy_rows = as_rows("i", made.annotations) if made.annotations else []
    kept = sum(of(row) and change in names for row, names in zip(noisy_rows, made.changes, strict=True))
    return lost if change in ("missed", "dropped_link", "systematic_missed") else kept


def within_bound(hits: int, chances: int, rate: float) -> None:
    """4 standard deviations of a binomial: a right one fails once in 16,000 seeds, and the seed is fixed."""
    assert chances > 50
    assert abs(hits - chances * rate) <= 4 * math.sqrt(chances * rate * (1 - rate)), (hits, chances)


# A copy


def test_without_rates_the_copy_is_the_same_row_for_row(scenes):
    for rows in scenes[:40]:
        made = noisy(*SIZE, rows, model())
        copied = as_rows("i", made.annotations)
        assert [content(row) for row in copied] == [content(row) for row in rows]
        place = {row["annotation_id"]: i for i, row in enumerate(rows)}
        new_place = {row["annotation_id"]: i for i, row in enumerate(copied)}
        assert [new_place.get(r["parent_id"]) for r in copied] == [place.get(r["parent_id"]) for r in rows]
        assert not made.lost and not any(made.changes)


def test_a_row_that_hangs_on_another_source_keeps_its_parent():
    phrase = Annotation("phrase", "a star", parent="elsewhere", span=(0, 6), box=(1, 1, 9, 9))
    made = noisy(*SIZE, as_rows("i", [phrase]), model({"swapped": 1, "missed": 1}))
    assert made.annotations[0].parent == "elsewhere" and content(made.annotations[0]) == content(phrase)


def test_the_order_of_sources_does_not_matter(scenes):
    chosen = model(ALL_RATES)
    for rows in scenes[:20]:
        a = noisy(*SIZE, rows, chosen)
        b = noisy(*SIZE, rows[::-1], chosen)
        assert Counter(map(content, a.annotations)) == Counter(map(content, b.annotations))
        assert set(a.lost) == set(b.lost)


# Rates


CHANCES: dict[str, Any] = {
    "missed": is_thing,
    "invented": is_thing,
    "jittered": is_thing,
    "mislabelled": is_thing,
    "split": lambda row: (
        is_thing(row) and max(row["box"][2] - row["box"][0], row["box"][3] - row["box"][1]) >= MIN_SPLIT
    ),
    "dropped_link": is_link,
    "jittered_link": is_link,
    "swapped": is_caption,
    "alt_text": is_caption,
    "boilerplate": is_caption,
    "truncated": lambda row: is_caption(row) and len(re.findall(r"[\w'’-]+", row["text"])) >= 4,
    "repeated": lambda row: is_caption(row) and len(re.findall(r"[\w'’-]+", row["text"])) >= 3,
    "attribute_flipped": lambda row: (
        is_caption(row)
        and re.search(
            r"\b(red|orange|yellow|green|blue|purple|pink|brown|black|white|gray|small|medium|large|two|three|four|five|six)\b",
            row["text"],
            re.IGNORECASE,
        )
    ),
}
"""The rows that could get a change, as docs/noise.md says it."""


@pytest.mark.parametrize("change", CHANCES)
def test_each_error_is_made_as_often_as_asked(scenes, change):
    rate, of = 0.3, CHANCES[change]
    base = next(one for one in (is_thing, is_link, is_caption) if of is one or change in CAPTIONS_OF[one])
    hits = chances = 0
    for rows in scenes:
        made = noisy(*SIZE, rows, model({change: rate}, seed=3))
        chances += sum(bool(of(row)) for row in rows)
        count = told(made, rows, change, base)
        hits += count // 2 if change == "split" else count
    within_bound(hits, chances, rate)


CAPTIONS_OF: dict[Any, tuple[str, ...]] = {
    is_thing: BOX_CHANGES,
    is_link: PHRASE_CHANGES,
    is_caption: CAPTION_CHANGES,
}


def test_wrong_links_are_made_as_often_as_asked_where_there_is_another_thing(scenes):
    """Chances counted anew: the image has a thing or a phrase's box that none of the phrase's own boxes is."""
    hits = chances = 0
    for rows in scenes:
        made = noisy(*SIZE, rows, model({"wrong_link": 0.3}, seed=4))
        hits += told(made, rows, "wrong_link", is_link)
        boxes = {tuple(row["box"]) for row in rows if is_thing(row) or is_link(row)}
        own: dict[Any, list[Any]] = {}
        for row in filter(is_link, rows):
            own.setdefault((row["parent_id"], tuple(row["span"])), []).append(tuple(row["box"]))
        for row in filter(is_link, rows):
            mine = own[row["parent_id"], tuple(row["span"])]
            chances += any(all(iou(box, one) < 0.5 for one in mine) for box in boxes)
    within_bound(hits, chances, 0.3)


def test_merges_are_made_as_often_as_asked_where_two_neighbours_could(crowds):
    """With rate 1 every pair that could merge does: that is the number of chances."""
    counts = []
    for rate in (1.0, 0.3):
        chosen = model({"merged": rate}, seed=5)
        counts.append(sum(told(noisy(*SIZE, rows, chosen), rows, "merged") for rows in crowds))
    within_bound(counts[1], counts[0], 0.3)


@pytest.mark.parametrize("change", ["missed", "dropped_link", "jittered", "alt_text"])
def test_a_higher_rate_changes_the_same_rows_and_more(scenes, change):
    low, high = (
        {
            (rows[0]["image_id"], where)
            for rows in scenes[:40]
            for made in [noisy(*SIZE, rows, model({change: rate}))]
            for where in [
                *(one.annotation_id for one in made.lost),
                *(content(r)[:3] for r, names in zip(made.annotations, made.changes, strict=True) if names),
            ]
        }
        for rate in (0.2, 0.6)
    )
    assert low < high


# Accounts


def check_accounts(rows: list[dict[str, Any]], made, size: tuple[int, int] = SIZE) -> None:
    """What the labels say adds up; phrases stand in their spans, and no box that is not a true one leaves the image."""
    true = Counter(map(content, rows))
    pairs = list(zip(made.annotations, made.changes, strict=True))
    clean = Counter(content(row) for row, names in pairs if not names)
    assert clean <= true, "a row without a label says just what a true row says"
    gone = Counter(content(r) for r in rows if r["annotation_id"] in {one.annotation_id for one in made.lost})
    assert clean + gone <= true
    # Every true row is there, or is missing with a label: the rest are labelled rows.
    labelled = sum(bool(names) for _, names in pairs)
    assert len({one.annotation_id for one in made.lost}) == len(made.lost)
    assert sum(true.values()) - sum(clean.values()) - len(made.lost) <= labelled
    assert {name for _, names in pairs for name in names} | {one.change for one in made.lost} <= set(CHANGES)
    stored = as_rows("i", made.annotations) if made.annotations else []
    by_id = {row["annotation_id"]: row for row in stored}
    boxes = {tuple(row["box"]) for row in rows if row["box"] is not None}
    for row in stored:
        if row["span"] is not None and row["parent_id"] in by_id:
            assert by_id[row["parent_id"]]["text"][slice(*row["span"])] == row["text"]
        if row["box"] is not None and tuple(row["box"]) not in boxes:
            x0, y0, x1, y1 = row["box"]
            assert 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]
        if row["mask"] is not None:
            assert pycocotools.mask.area(row["mask"]) > 0
    if not any("invented" in names or "split" in names for _, names in pairs):
        kept = len(rows) - len(made.lost)
        assert len(pairs) == kept


@pytest.mark.parametrize("change", ALL_RATES)
def test_the_labels_name_every_change(scenes, crowds, change):
    for rows in [*scenes[:40], *crowds[:10]]:
        made = noisy(*SIZE, rows, model({change: 0.5}))
        check_accounts(rows, made)
        named = {name for names in made.changes for name in names} | {one.change for one in made.lost}
        assert named <= {change, REANCHORED}
        # With one kind of change alone, what bears its label is not what truth says.
        truth = {(content(row), parent_text(row, rows)) for row in rows}
        for row, names in zip(made.annotations, made.changes, strict=True):
            if names:
                parent = row.parent.text if isinstance(row.parent, Annotation) else None
                assert (content(row), parent) not in truth


def parent_text(row: dict[str, Any], rows: list[dict[str, Any]]) -> str | None:
    return next((r["text"] for r in rows if r["annotation_id"] == row["parent_id"]), None)


def test_the_labels_name_every_change_when_all_are_made_together(scenes, crowds):
    several = 0
    for rows in [*scenes, *crowds[:40]]:
        made = noisy(*SIZE, rows, model(ALL_RATES, systematic={"corner": "top_left"}))
        check_accounts(rows, made)
        several += sum(len(names) > 1 for names in made.changes)
    assert several > 100


WORDS = st.sampled_from(
    ["a", "an", "Red", "red", "orange", "SMALL", "two", "cup", "cups.", "star,", "on", "the", "ünder", "😀"]
)
RATE = st.sampled_from([0.0, 0.3, 1.0])


@st.composite
def pages(draw: st.DrawFn) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """An image of any size with regions (some beyond its border), captions and their phrases."""
    width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    number = st.floats(-10, 70, width=32)
    annotations: list[Annotation] = []
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x, y, w, h = draw(number), draw(number), draw(st.floats(0.25, 80)), draw(st.floats(0.25, 80))
        box = (x, y, x + w, y + h)
        boxes.append(box)
        name = draw(st.sampled_from([*CLASSES, "delta", None]))
        granularity = draw(st.sampled_from(["phrase", "proposal", "ocr"]))
        region = Annotation("region", name, granularity, box=box, score=draw(st.sampled_from([None, 0.5])))
        annotations.append(region)
        if draw(st.booleans()):
            annotations.append(
                Annotation("region", f"an old {name}, a {name}", "brief", parent=region, box=box)
            )
        pixels = np.zeros((height, width), np.uint8, order="F")
        pixels[: max(1, height // 2), : max(1, width // 2)] = 1
        rle = pycocotools.mask.encode(pixels)
        mask = {"size": [height, width], "counts": rle["counts"].decode()}
        if draw(st.booleans()):
            annotations.append(Annotation("region", parent=region, box=box, mask=mask))
        if draw(st.booleans()):
            annotations.append(Annotation("region", parent=region, score=0.25))
    for granularity in draw(st.lists(st.sampled_from(["brief", "detailed", "ocr", "class"]), max_size=3)):
        text = " ".join(draw(st.lists(WORDS, min_size=1, max_size=12)))
        caption = Annotation("text", text, granularity)
        annotations += [caption, Annotation("text", parent=caption, score=0.5)]
        for box in boxes:
            start = draw(st.integers(0, len(text) - 1))
            end = draw(st.integers(start + 1, len(text)))
            phrase = Annotation("phrase", text[start:end], parent=caption, span=(start, end), box=box)
            annotations += [phrase, Annotation("phrase", parent=phrase, score=0.5)]
    return (width, height), as_rows("i", annotations)


@settings(max_examples=150, deadline=None)
@given(
    pages(),
    st.dictionaries(st.sampled_from(sorted(ALL_RATES)), RATE),
    st.integers(0, 5),
    st.sampled_from([{}, {"corner": "bottom_right", "shift": -0.5}, {"missed_below": 9, "called": {"delta": "alpha"}}]),
)  # fmt: skip
def test_accounts_add_up_for_any_rows_and_rates(page, rates, seed, systematic):
    size, rows = page
    chosen = noise_model(
        {
            "rates": rates,
            "donors": DONORS,
            "classes": [*CLASSES, "delta"],
            "seed": seed,
            "systematic": systematic,
            "sigma": 0.4,
        }
    )
    made = noisy(*size, rows, chosen)
    check_accounts(rows, made, size)
    again = noisy(*size, rows, chosen)
    assert list(map(content, again.annotations)) == list(map(content, made.annotations))
    assert again.changes == made.changes and again.lost == made.lost


@given(st.text("ab cü", min_size=1, max_size=20), st.data())
def test_a_moved_span_spells_what_it_spelled_but_for_the_edits_inside(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
    edits = [
        Edit(a, b, data.draw(st.text("xyz", max_size=8)), data.draw(st.booleans()))
        for a, b in (cuts[:2], cuts[2:])
    ]
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    moved = moved_span((start, end), edits)
    new = edited(text, edits)
    if moved is not None:
        inside = [
            Edit(e.start - start, e.end - start, e.new) for e in edits if start < e.end and e.start < end
        ]
        assert new[slice(*moved)] == edited(text[start:end], inside)
    if all(e.end <= start or e.start >= end for e in edits):
        assert moved is not None


@pytest.mark.parametrize(
    ("text", "old", "new", "result"),
    [
        ("A red cup", "red", "orange", "An orange cup"),
        ("see an orange cup", "orange", "blue", "see a blue cup"),
        ("a red cup", "red", "blue", "a blue cup"),
        ("Two cups", "Two", "three", "Three cups"),
        ("a RED cup", "RED", "orange", "an ORANGE cup"),
        ("the red cup", "red", "orange", "the orange cup"),
    ],
)
def test_an_exchanged_word_keeps_case_and_article(text, old, new, result):
    start = text.index(old)
    assert edited(text, exchanged(text, start, start + len(old), new)) == result


# What each error looks like


def test_invented_boxes_lie_where_nothing_true_is_and_have_all_that_true_ones_have(scenes):
    seen = 0
    for rows in scenes[:60]:
        made = noisy(*SIZE, rows, model({"invented": 1}))
        true = [tuple(row["box"]) for row in rows if row["kind"] == "region"]
        invented = [row for row, names in zip(made.annotations, made.changes, strict=True) if names]
        for row in invented:
            assert all(iou(tuple(row.box), box) <= MOST_OVERLAP + 1e-6 for box in true)
        things = [row for row in invented if row.parent is None]
        assert all(row.text in CLASSES for row in things)
        seen += len(things)
    assert seen > 100


def test_jittered_edges_move_by_sigma_of_their_boxes_sides(crowds):
    """Far from the image's edge the moves are normal: their deviation is within 4 of its own of `sigma`."""
    moves = []
    for rows in crowds:
        made = noisy(*SIZE, rows, model({"jittered": 1}, sigma=0.1))
        for old, new in zip(rows, made.annotations, strict=True):
            x0, y0, x1, y1 = old["box"]
            w, h = x1 - x0, y1 - y0
            if is_thing(old) and min(x0 / w, y0 / h, (160 - x1) / w, (120 - y1) / h) > 0.5 and min(w, h) > 5:
                moves.append((np.array(new.box) - old["box"]) / (w, h, w, h))
    spread = np.concatenate(moves)
    assert len(spread) > 1000 and abs(spread.mean()) < 4 * 0.1 / math.sqrt(len(spread))
    assert abs(spread.std() - 0.1) < 4 * 0.1 / math.sqrt(2 * len(spread))


def test_a_mask_follows_its_jittered_box(scenes):
    seen = 0
    for rows in scenes[:40]:
        made = noisy(*SIZE, rows, model({"jittered": 1}, sigma=0.15))
        for row in made.annotations:
            if row.kind == "region" and row.mask is not None:
                x, y, w, h = pycocotools.mask.toBbox(row.mask)
                assert tuple(row.box) == tuple(row.parent.box)
                # Nearest pixels: an outline may miss its box's edge by the pixel it is sampled from.
                stretch = 1 + max(
                    (row.box[2] - row.box[0]) / max(w, 1), (row.box[3] - row.box[1]) / max(h, 1)
                )
                assert np.abs(np.array([x, y, x + w, y + h]) - row.box).max() <= 1 + stretch
                seen += 1
    assert seen > 60


def test_split_parts_are_the_whole_and_a_merged_box_is_the_union():
    box = (10.0, 20.0, 50.0, 40.0)
    pixels = np.zeros((120, 160), np.uint8, order="F")
    pixels[20:40, 10:50] = 1
    rle = pycocotools.mask.encode(pixels)
    mask = {"size": [120, 160], "counts": rle["counts"].decode()}
    region = Annotation("region", "alpha", "phrase", box=box)
    mask_row = Annotation("region", parent=region, box=box, mask=mask)
    rows = as_rows("i", [region, mask_row])
    made = noisy(*SIZE, rows, model({"split": 1}))
    (a, mask_a), (b, mask_b) = made.annotations[:2], made.annotations[2:]
    assert a.box[:2] == box[:2] and b.box[2:] == box[2:] and a.box[2] == b.box[0]
    both = pycocotools.mask.decode(mask_a.mask) + pycocotools.mask.decode(mask_b.mask)
    assert (both == pixels).all()

    other = Annotation("region", "alpha", "phrase", box=(55.0, 25.0, 80.0, 45.0))
    others = np.zeros_like(pixels)
    others[25:45, 55:80] = 1
    rle = pycocotools.mask.encode(others)
    other_mask = Annotation(
        "region",
        parent=other,
        box=other.box,
        mask={"size": [120, 160], "counts": rle["counts"].decode()},
    )
    unlike = Annotation("region", "beta", "phrase", box=(52.0, 25.0, 70.0, 45.0))
    rows = as_rows("i", [region, mask_row, other, other_mask, unlike])
    made = noisy(*SIZE, rows, model({"merged": 1}))
    boxes = [tuple(row.box) for row in made.annotations]
    assert boxes == [(10, 20, 80, 45)] * 2 + [tuple(unlike.box)]
    assert (pycocotools.mask.decode(made.annotations[1].mask) == pixels + others).all()
    assert [one.change for one in made.lost] == ["merged", "merged"]


def test_a_mislabelled_thing_is_described_by_its_new_name():
    region = Annotation("region", "cup", "phrase", box=(1, 1, 20, 20))
    rows = as_rows(
        "i", [region, Annotation("region", "a cup, a red cup", "brief", parent=region, box=region.box)]
    )
    chosen = noise_model({"rates": {"mislabelled": 1}, "confusions": {"cup": "arrow"}})
    made = noisy(*SIZE, rows, chosen)
    assert [row.text for row in made.annotations] == ["arrow", "an arrow, a red arrow"]


def test_a_wrong_link_takes_the_other_things_box_and_mask(scenes):
    seen = 0
    for rows in scenes[:40]:
        made = noisy(*SIZE, rows, model({"wrong_link": 1}))
        masks = {tuple(r["box"]): r["mask"]["counts"] for r in rows if r["mask"] is not None}
        for row, names in zip(made.annotations, made.changes, strict=True):
            if names and row.mask is not None:
                assert masks[tuple(row.box)] == row.mask["counts"] and row.parent.box == row.box
                seen += 1
    assert seen > 60


def test_flipped_phrases_say_the_new_word_and_others_are_only_reanchored():
    text = "A red cup and two small stars."
    caption = Annotation("text", text, "brief")
    phrases = [
        Annotation("phrase", text[a:b], parent=caption, span=(a, b), box=(1, 1, 9, 9))
        for a, b in ((0, 9), (14, 29))
    ]
    rows = as_rows("i", [caption, *phrases])
    chosen = model({"attribute_flipped": 1}, attributes={"colours": ["red", "orange"]})
    made = noisy(*SIZE, rows, chosen)
    assert [row.text for row in made.annotations] == [
        "An orange cup and two small stars.",
        "An orange cup",
        "two small stars",
    ]
    assert [row.span for row in made.annotations] == [None, (0, 13), (18, 33)]
    assert made.changes == [("attribute_flipped",), ("attribute_flipped",), (REANCHORED,)]


def test_captions_look_like_their_error(scenes):
    def pairs(change: str):
        for rows in scenes[:60]:
            made = noisy(*SIZE, rows, model({change: 1}))
            true = [row["text"] for row in rows if is_caption(row)]
            yield from zip(
                true,
                [r.text for r in made.annotations if r.kind == "text" and r.granularity != "ocr"],
                strict=True,
            )

    for true, text in pairs("truncated"):
        assert true.startswith(text) and (text == true or not text.endswith("."))
    for _, text in pairs("swapped"):
        assert text in DONORS
    for true, text in pairs("boilerplate"):
        assert true in text and true != text
    for rows in scenes[:60]:
        made = noisy(*SIZE, rows, model({"boilerplate": 1}))
        phrases = [[c[:3] for c in map(content, one) if c[0] == "phrase"] for one in (rows, made.annotations)]
        assert phrases[0] == phrases[1], "boilerplate breaks no phrase"
    for _, text in pairs("repeated"):
        assert re.search(r"(\b.+)( \1){2,}$", text), text
    for true, text in pairs("attribute_flipped"):
        others = sum(a != b for a, b in zip(true.split(), text.split(), strict=True))
        assert others in (1, 2) or text == true  # the word, and its article
    for true, text in pairs("alt_text"):
        assert text != true and not text.endswith(".")


# Variants


def test_a_class_has_its_own_rates(crowds):
    """alpha is missed at 0.1 x 4, gamma never."""
    chosen = model({"missed": 0.1}, class_factors={"alpha": {"missed": 4}, "gamma": {"missed": 0}}, seed=6)
    hits, chances = Counter(), Counter()
    for rows in crowds:
        name = {row["annotation_id"]: row["text"] for row in rows if is_thing(row)}
        chances.update(name.values())
        hits.update(
            name[one.annotation_id] for one in noisy(*SIZE, rows, chosen).lost if one.annotation_id in name
        )
    within_bound(hits["alpha"], chances["alpha"], 0.4)
    within_bound(hits["beta"], chances["beta"], 0.1)
    assert hits["gamma"] == 0


def test_a_class_is_taken_for_what_its_confusions_say(crowds):
    """alpha becomes beta three times as often as gamma; the others become any other class."""
    chosen = model({"mislabelled": 1}, confusions={"alpha": {"beta": 3, "gamma": 1}}, seed=7)
    seen = Counter()
    for rows in crowds:
        made = noisy(*SIZE, rows, chosen)
        copies = as_rows("i", made.annotations)
        seen.update(
            (old["text"], new["text"]) for old, new in zip(rows, copies, strict=True) if is_thing(old)
        )
    within_bound(seen["alpha", "beta"], seen["alpha", "beta"] + seen["alpha", "gamma"], 0.75)
    within_bound(seen["beta", "alpha"], seen["beta", "alpha"] + seen["beta", "gamma"], 0.5)
    assert not any(old == new for old, new in seen)


def test_systematic_errors_are_made_by_rule_and_no_others(crowds):
    rules = {"missed_below": 12, "corner": "bottom_right", "shift": 0.25, "called": {"alpha": "beta"}}
    for rows in crowds[:60]:
        made = noisy(*SIZE, rows, model(systematic=rules))
        check_accounts(rows, made)
        true = [row for row in rows if is_thing(row)]
        small = {
            r["annotation_id"]
            for r in true
            if math.sqrt((r["box"][2] - r["box"][0]) * (r["box"][3] - r["box"][1])) < 12
        }
        things = {r["annotation_id"] for r in true}
        assert {one.annotation_id for one in made.lost} & things == small
        left = [row for row in true if row["annotation_id"] not in small]
        copies = [row for row in as_rows("i", made.annotations) if is_thing(row)]
        for old, new in zip(left, copies, strict=True):
            assert new["text"] == ("beta" if old["text"] == "alpha" else old["text"])
            x0, y0, x1, y1 = old["box"]
            want = (x0, y0, min(160, x1 + (x1 - x0) / 4), min(120, y1 + (y1 - y0) / 4))
            assert new["box"] == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"rates": {"mised": 0.1}}, "did you mean 'missed'"),
        ({"rates": {"missed": 1.5}}, "rates.missed"),
        ({"rates": {"missed": -0.1}}, "rates.missed"),
        ({"rates": {"missed": float("nan")}}, "rates.missed"),
        ({"rates": {"missed": "often"}}, "rates.missed"),
        ({"systematic": {"corners": "top_left"}}, "did you mean 'corner'"),
        ({"systematic": {"corner": "middle"}}, "systematic.corner"),
        ({"systematic": {"called": {"a": "a"}}}, "no error"),
        ({"sigma": 0}, "sigma"),
        ({"class_factors": {"cup": {"swapped": 2}}}, "no error of regions"),
        ({"class_factors": {"cup": {"mised": 2}}}, "did you mean 'missed'"),
        (
            {"classes": ["cup", "star"], "class_factors": {"cupp": {"missed": 2}}},
            "did you mean 'cup'",
        ),
        ({"confusions": {"cup": ["cup", "star"]}}, "other classes"),
        ({"confusions": {"cup": {"star": 0}}}, "other classes"),
        ({"rates": {"mislabelled": 0.1}}, "names to get"),
        ({"attributes": {"colours": ["red", "Red"]}}, "two words"),
        ({"rates": {"swapped": 0.1}, "donors": ["one"]}, "donors"),
        ({"rates": {"swapped": 0.1}, "donors": "no/such/file.txt"}, "donors"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(args, says):
    with pytest.raises(RecipeError) as caught:
        Noise(**args)
    assert says in f"{caught.value.message} {caught.value.hint}" and caught.value.hint


# In the engine


def test_donors_come_from_a_file_a_list_or_a_world(tmp_path):
    (tmp_path / "captions.txt").write_text("A cat.\n\nTwo dogs.\nA cat.\n")
    assert donor_bank(str(tmp_path / "captions.txt")) == ("A cat.", "Two dogs.")
    (tmp_path / "captions.csv").write_text('id,text\n1,"A cat, a dog."\n2,"Two\nlines"\n')
    assert donor_bank(str(tmp_path / "captions.csv")) == ("A cat, a dog.", "Two\nlines")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecipeError, match="no column 'text'"):
        donor_bank(str(tmp_path / "other.csv"))
    assert donor_bank(["x", "y"]) == ("x", "y")
    scenes = donor_bank("target")
    assert len(scenes) > 100 and scenes != donor_bank("pretraining")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("noise")
    make_scenes(folder / "scenes", 40, seed=0, size=SIZE)
    ingest(str(folder / "scenes"), str(folder / "ds"), shard_size=15)
    return Dataset.open(str(folder / "ds"))


def ask(dataset: Dataset, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in sql(dataset, query).to_pylist()]


def block(language: str, index: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(), re.DOTALL)[index]


def test_the_documented_recipe_runs_and_every_labels_parent_exists(dataset):
    recipe = read_recipe(block("yaml"), "docs/noise.md")
    # Without splits, so that rows can be counted; with another batch, which must not matter to the labels.
    parts = {
        name: part.model_copy(
            update={
                "args": {**part.args, "rates": {**part.args["rates"], "split": 0}},
                "batch": {"noisy": 16, "noise": 7}[name],
            }
        )
        for name, part in recipe.specialists.items()
    }
    summary = annotate(
        dataset,
        recipe.model_copy(update={"specialists": parts}),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    assert [stage.failures for stage in summary.stages] == [0, 0]
    assert ask(dataset, "SELECT count(*) > 200 FROM annotations WHERE source = 'noise'") == [(True,)]
    lost = "SELECT count(*) FROM annotations n LEFT JOIN annotations p ON p.annotation_id = n.parent_id WHERE n.source = 'noise' AND "
    for offending in (
        "p.annotation_id IS NULL",
        "n.kind <> p.kind",
        "n.image_id <> p.image_id",
        "n.box IS NOT NULL",
        "p.source NOT IN ('noisy', 'truth')",
    ):
        assert ask(dataset, lost + offending) == [(0,)], offending
    # A clean row says what a true one of its image says.
    assert ask(
        dataset,
        "SELECT count(*) FROM annotations c WHERE source = 'noisy' "
        "AND NOT EXISTS (FROM annotations n WHERE n.source = 'noise' AND n.parent_id = c.annotation_id) "
        "AND NOT EXISTS (FROM annotations t WHERE t.source = 'truth' AND t.image_id = c.image_id AND t.kind = c.kind "
        "AND t.text IS NOT DISTINCT FROM c.text AND t.span IS NOT DISTINCT FROM c.span "
        "AND t.box IS NOT DISTINCT FROM c.box AND t.mask IS NOT DISTINCT FROM c.mask)",
    ) == [(0,)]
    # Every true row without a counterpart of its content bears a label, or its copy does.
    counts = dict(ask(dataset, "SELECT source, count(*) FROM annotations GROUP BY ALL"))
    added = ask(dataset, "SELECT count(*) FROM annotations WHERE source = 'noise' AND text = 'invented'")[0][
        0
    ]
    gone = ask(
        dataset,
        "SELECT count(*) FROM annotations n JOIN annotations t ON t.annotation_id = n.parent_id "
        "WHERE n.source = 'noise' AND t.source = 'truth'",
    )[0][0]
    assert counts["noisy"] == counts["truth"] + added - gone
    found = {name for (name,) in ask(dataset, "SELECT DISTINCT text FROM annotations WHERE source = 'noise'")}
    assert found <= set(CHANGES) and {"missed", "jittered", "invented", "mislabelled"} <= found


def test_the_documented_queries_run(dataset):
    recipe = read_recipe(block("yaml"), "docs/noise.md")
    annotate(dataset, recipe, runner="inline", reporter=Reporter(terminal=False))
    rule = FilterPart(use="filters.box_size:MinimumSide", args={"pixels": 12})
    filter_dataset(dataset, recipe.model_copy(update={"filters": {"small": rule}}))
    found = [
        ask(dataset, query) for query in re.findall(r'fde sql DATASET "(.*?)"', DOC.read_text(), re.DOTALL)
    ]
    assert len(found) == 3 and all(found)
    assert ("missed", "truth") in [row[:2] for row in found[0]]
    assert {("clean", None), ("clean", "small"), ("invented", None)} <= {row[:2] for row in found[1]}


def test_other_args_for_the_labels_end_the_run_with_a_reason(dataset):
    recipe = read_recipe(block("yaml"), "docs/noise.md")
    part = recipe.specialists["noise"]
    parts = dict(recipe.specialists)
    parts["noise"] = part.model_copy(update={"args": {**part.args, "seed": 99}})
    with pytest.raises(RecipeError, match="are not what these args make"):
        annotate(
            dataset,
            recipe.model_copy(update={"specialists": parts}),
            runner="inline",
            reporter=Reporter(terminal=False),
        )


def test_noise_without_needs_says_so():
    for specialist in (Noise(), NoiseLabels("noisy")):
        with pytest.raises(RecipeError, match="nothing to copy"):
            specialist([], None)


def test_a_label_stands_on_the_noisy_row_or_on_the_true_one_that_is_missed():
    a = Annotation("region", "alpha", "phrase", box=(1, 1, 20, 20))
    rows = as_rows("i", [a])
    made = noisy(*SIZE, rows, model({"missed": 1}))
    assert [(x.kind, x.text, x.parent) for x in labels(made, [])] == [
        ("region", "missed", rows[0]["annotation_id"])
    ]
    made = noisy(*SIZE, rows, model({"jittered": 1, "mislabelled": 1}))
    assert [(x.text, x.parent) for x in labels(made, ["new"])] == [
        ("jittered", "new"),
        ("mislabelled", "new"),
    ]


def test_the_page_on_noise_names_every_change():
    named = set(re.findall(r"^\| `(\w+)` \|", DOC.read_text(), re.MULTILINE))
    assert named == set(CHANGES)
