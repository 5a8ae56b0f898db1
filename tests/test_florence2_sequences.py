"""Annotation rows to prompts and answers, and back through the grammar."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation
from data_engine.scenes.scene import make_scene
from specialists.florence2.grammar import Found, Vocabulary, clean_label, parse
from specialists.florence2.masks import encode
from specialists.florence2.outlines import MAX_PARTS, MAX_POINTS, outlines
from specialists.florence2.prompts import TASKS
from specialists.florence2.scratch import make_tokenizer
from specialists.florence2.sequences import Example, sequences

# pycocotools' decode still has NumPy 1's __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (320, 240)


@cache
def _tokenizer() -> Any:
    return make_tokenizer(["two small red stars"], words=300)


@cache
def _vocabulary() -> Vocabulary:
    return Vocabulary(_tokenizer())


def _read(example: Example, size: tuple[int, int] = SIZE) -> list[Found]:
    ids = _tokenizer()(example.answer, add_special_tokens=False)["input_ids"]
    return parse(ids, TASKS[example.task].grammar, _vocabulary(), size)


def _answers(rows: list[Annotation], task: str, size: tuple[int, int] = SIZE) -> dict[str, str]:
    return {e.said: e.answer for e in sequences(rows, size, (task,))}


def _mask(pixels: np.ndarray) -> dict[str, Any]:
    rle = pycocotools.mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _region(text: str | None, box: tuple[float, ...], granularity: str = "phrase") -> Annotation:
    return Annotation("region", text, granularity, box=box)


_labels = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda text: bool(clean_label(text))
)
_sizes = st.tuples(st.integers(20, 3000), st.integers(20, 3000))


@st.composite
def _boxes(draw: st.DrawFn, size: tuple[int, int]) -> tuple[float, float, float, float]:
    x0, x1 = sorted(draw(st.lists(st.floats(0, size[0]), min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(st.floats(0, size[1]), min_size=2, max_size=2, unique=True)))
    return x0, y0, x1, y1


@st.composite
def _detections(draw: st.DrawFn) -> tuple[tuple[int, int], list[Annotation]]:
    size = draw(_sizes)
    rows = st.builds(_region, _labels, _boxes(size), st.sampled_from(["phrase", "brief"]))
    return size, draw(st.lists(rows, max_size=8))


@settings(deadline=None)  # the first example makes a tokenizer
@given(_detections(), st.sampled_from([("OD", "phrase"), ("DENSE_REGION_CAPTION", "brief")]))
def test_detections_are_read_back_within_a_bin(
    image: tuple[tuple[int, int], list[Annotation]], task: tuple[str, str]
) -> None:
    (size, rows), (name, granularity) = image, task
    wanted = [row for row in rows if row.granularity == granularity]
    found = [f for example in sequences(rows, size, (name,)) for f in _read(example, size)]
    assert {f.label for f in found} == {clean_label(row.text or "") for row in wanted}
    bin_ = np.array([*size, *size]) / 1000 * (1 + 1e-6)

    def same(f: Found, row: Annotation) -> bool:
        near = np.abs(np.array(f.box) - np.array(row.box)) <= bin_
        return f.label == clean_label(row.text or "") and bool(near.all())

    assert all(any(same(f, row) for f in found) for row in wanted)
    assert all(any(same(f, row) for row in wanted) for f in found)
    # Labels alphabetically, and each label's boxes together and by falling area.
    assert [f.label for f in found] == sorted(f.label for f in found)


@st.composite
def _captions(draw: st.DrawFn) -> tuple[tuple[int, int], list[Annotation]]:
    """A caption of words, some of which are phrases with boxes, each by its span."""
    size = draw(_sizes)
    words = draw(st.lists(_labels, min_size=1, max_size=6))
    text, spans = "", []
    for word in words:
        spans.append((len(text), len(text) + len(word)))
        text += word + ", "
    caption = Annotation("text", text, "brief")
    rows = [caption]
    for start, end in draw(st.lists(st.sampled_from(spans), unique=True)):
        for box in draw(st.lists(_boxes(size), min_size=1, max_size=3)):
            rows.append(Annotation("phrase", text[start:end], parent=caption, span=(start, end), box=box))
    return size, rows


@settings(deadline=None)  # the first example makes a tokenizer
@given(_captions())
def test_phrases_are_read_back_in_the_caption_s_order(
    image: tuple[tuple[int, int], list[Annotation]],
) -> None:
    size, rows = image
    phrases = sorted((row for row in rows if row.kind == "phrase"), key=lambda row: row.span or (0, 0))
    found = [
        f for example in sequences(rows, size, ("CAPTION_TO_PHRASE_GROUNDING",)) for f in _read(example, size)
    ]
    said = list(dict.fromkeys(row.span for row in phrases))
    labels = {row.span: clean_label(row.text or "") for row in phrases}
    groups = list(dict.fromkeys(f.label_tokens for f in found))
    assert [next(f.label for f in found if f.label_tokens == g) for g in groups] == [labels[s] for s in said]
    bin_ = np.array([*size, *size]) / 1000 * (1 + 1e-6)
    for group, span in zip(groups, said, strict=True):
        boxes = np.array([f.box for f in found if f.label_tokens == group])
        for row in phrases:
            if row.span == span:
                assert (np.abs(boxes - np.array(row.box)) <= bin_).all(axis=1).any()


def test_boxes_of_one_label_are_written_once_and_larger_first() -> None:
    rows = [
        _region("star", (0, 0, 32, 24)),
        _region("cup", (160, 120, 320, 240)),
        _region("star", (160, 0, 320, 120)),
        _region("star", (0, 0, 32, 24)),
    ]
    (answer,) = _answers(rows, "OD").values()
    assert answer == (
        "cup<loc_500><loc_500><loc_999><loc_999>"
        "star<loc_500><loc_0><loc_999><loc_500><loc_0><loc_0><loc_100><loc_100>"
    )
    assert _answers(rows, "OPEN_VOCABULARY_DETECTION").keys() == {"cup", "star"}
    assert _answers(rows, "REGION_TO_CATEGORY") == {
        "<loc_0><loc_0><loc_100><loc_100>": "star",
        "<loc_500><loc_500><loc_999><loc_999>": "cup",
        "<loc_500><loc_0><loc_999><loc_500>": "star",
    }


def test_proposals_are_all_things_by_falling_area_and_no_writing() -> None:
    rows = [
        _region(None, (0, 0, 32, 24), "proposal"),
        _region("cup", (160, 120, 320, 240)),
        _region("EXIT", (160, 0, 320, 120), "ocr"),
    ]
    assert _answers(rows, "REGION_PROPOSAL") == {
        "": "<loc_500><loc_500><loc_999><loc_999><loc_0><loc_0><loc_100><loc_100>"
    }


def test_lines_of_writing_are_in_reading_order() -> None:
    # Two signs side by side, one a little lower, and a line below both; given upside down.
    boxes = {"below": (10, 100, 90, 120), "right": (150, 14, 200, 34), "left": (10, 10, 90, 30)}
    rows = [_region(text, box, "ocr") for text, box in boxes.items()]
    rows.append(Annotation("text", "left right\nbelow", "ocr"))
    (example,) = sequences(rows, SIZE, ("OCR_WITH_REGION",))
    found = _read(example)
    assert [f.label for f in found] == ["left", "right", "below"]
    assert found[0].rings[0] == pytest.approx(np.array([(10, 10), (90, 10), (90, 30), (10, 30)]), abs=0.33)
    assert _answers(rows, "OCR") == {"": "left right\nbelow"}
    assert set(_answers(rows, "REGION_TO_OCR").values()) == set(boxes)


def test_a_turned_line_keeps_its_own_top_left_corner() -> None:
    quad = (100, 100, 110, 60, 130, 65, 120, 105)
    row = Annotation("region", "up", "ocr", box=(100, 60, 130, 105), quad=quad)
    (example,) = sequences([row], SIZE, ("OCR_WITH_REGION",))
    assert _read(example)[0].rings[0].reshape(-1) == pytest.approx(quad, abs=0.33)


def test_text_that_looks_like_a_token_stays_text() -> None:
    rows = [
        _region("a <loc_5> b", (0, 0, 32, 24)),
        Annotation("text", "see </s> <loc_7>", "brief"),
        Annotation("text", "5 < 7\n<poly>", "ocr"),
    ]
    for example in sequences(rows, SIZE):
        ids = _tokenizer()(example.answer, add_special_tokens=False)["input_ids"]
        words = [t for t in _tokenizer().convert_ids_to_tokens(ids) if t.startswith("<") and len(t) > 1]
        assert all(t.startswith("<loc_") and t not in ("<loc_5>", "<loc_7>") for t in words)
    assert [f.label for f in _read(sequences(rows, SIZE, ("OD",))[0])] == ["a loc_5> b"]


# Outlines


def _ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


@settings(deadline=None)  # the first example makes a tokenizer
@given(st.floats(60, 260), st.floats(60, 180), st.floats(8, 50), st.floats(8, 50))
def test_an_outline_covers_its_mask_clockwise_from_the_top_left(
    cx: float, cy: float, rx: float, ry: float
) -> None:
    pixels = _ellipse(cx, cy, rx, ry)
    (ring,) = outlines(_mask(pixels))
    assert 3 <= len(ring) <= MAX_POINTS
    again = encode([ring], SIZE)
    assert again is not None
    assert pycocotools.mask.iou([again], [_mask(pixels)], [False])[0, 0] > 0.85
    after = np.roll(ring, -1, axis=0)
    assert (ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum() > 0
    assert ring.sum(axis=1).argmin() == 0


def test_a_rectangle_s_outline_is_its_four_corners() -> None:
    pixels = np.zeros(SIZE[::-1], bool)
    pixels[50:100, 20:200] = True
    (ring,) = outlines(_mask(pixels))
    assert ring == pytest.approx(np.array([(20, 50), (200, 50), (200, 100), (20, 100)]), abs=0.26)


def test_masks_without_outlines_and_masks_in_many_parts() -> None:
    assert outlines(_mask(np.zeros(SIZE[::-1], bool))) == []
    pixels = np.zeros(SIZE[::-1], bool)
    for i in range(10):
        pixels[10 : 20 + i, 30 * i : 30 * i + 10] = True
    rings = outlines(_mask(pixels))
    assert len(rings) == MAX_PARTS
    heights = [np.ptp(ring[:, 1]) for ring in rings]
    assert heights == sorted(heights, reverse=True)


def test_parts_are_separated_and_instances_are_marked() -> None:
    halves = _ellipse(60, 60, 20, 20) | _ellipse(160, 60, 15, 15)
    other = _ellipse(250, 180, 20, 20)
    caption = Annotation("text", "stars and a cup", "brief")
    rows = [caption]
    for text, span, pixels in (
        ("stars", (0, 5), halves),
        ("stars", (0, 5), other),
        ("a cup", (10, 15), other),
    ):
        phrase = Annotation("phrase", text, parent=caption, span=span, box=(1, 1, 9, 9))
        rows += [phrase, Annotation("phrase", parent=phrase, box=(1, 1, 9, 9), mask=_mask(pixels))]
    by_words = {e.said: e for e in sequences(rows, SIZE, ("REFERRING_EXPRESSION_SEGMENTATION",))}
    assert by_words["stars"].answer.count("<poly>") == by_words["stars"].answer.count("</poly>") == 2
    assert by_words["stars"].answer.count("<sep>") == 1
    assert "<poly>" not in by_words["a cup"].answer
    assert sorted(len(f.rings) for f in _read(by_words["stars"])) == [1, 2]
    drawn = encode([ring for f in _read(by_words["stars"]) for ring in f.rings], SIZE)
    assert pycocotools.mask.iou([drawn], [_mask(halves | other)], [False])[0, 0] > 0.85


# Whole images


def test_a_scene_s_every_answer_is_whole_under_its_grammar() -> None:
    seen = set()
    for index in range(12):
        for example in sequences(make_scene(7, index, SIZE).annotations, SIZE):
            seen.add(example.task)
            found = _read(example)
            assert found, example
            if not example.answer.startswith("<") and "<loc_" not in example.answer:
                assert found[0].label == example.answer
            else:
                tokens = sum(len(f.location_tokens) for f in found)
                assert tokens == example.answer.count("<loc_"), example
            assert example.prompt.startswith(TASKS[example.task].sentence.split("{")[0])
    assert seen == set(TASKS)


def test_only_the_tasks_asked_for_and_none_without_rows() -> None:
    rows = make_scene(7, 0, SIZE).annotations
    assert {e.task for e in sequences(rows, SIZE, ("OD", "CAPTION"))} == {"OD", "CAPTION"}
    assert sequences([], SIZE) == []
    caption = Annotation("text", "a red star", "brief")
    assert [e.task for e in sequences([caption], SIZE)] == ["CAPTION"]
    # A parent that is only named by an id cannot be looked up, and a phrase without its text is nothing.
    stray = Annotation("phrase", "a star", parent="0" * 32, span=(0, 6), box=(0, 0, 9, 9))
    assert sequences([stray], SIZE) == []
