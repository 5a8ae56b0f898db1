"""The parser of generated tokens: total, exact, and in agreement with the library's own."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialists.florence2.grammar import Found, Vocabulary, parse
from specialists.florence2.prompts import TASKS, Grammar
from tests.toy_florence2 import processor

untimed = settings(deadline=None)
SIZE = (640, 480)


@cache
def _processor() -> Any:
    return processor()


@cache
def _vocabulary() -> Vocabulary:
    return Vocabulary(_processor().tokenizer)


def ids_of(text: str) -> list[int]:
    return _processor().tokenizer(text, add_special_tokens=False)["input_ids"]


def read(text: str, grammar: Grammar, truncated: bool = False) -> list[Found]:
    return parse(ids_of(text), grammar, _vocabulary(), SIZE, truncated)


def loc(bins: list[int] | tuple[int, ...]) -> str:
    return "".join(f"<loc_{b}>" for b in bins)


def bins_of(found: Found) -> list[list[int]]:
    size = np.array(SIZE) / 1000
    return [np.round(ring / size - 0.5).astype(int).reshape(-1).tolist() for ring in found.rings]


bins = st.integers(0, 999)
words = st.text("abcdefghij XYZ.,'-12>/", min_size=1).map(lambda s: " ".join(s.split())).filter(bool)
boxes = st.lists(st.lists(bins, min_size=4, max_size=4), min_size=1, max_size=4)
polygon = st.integers(3, 6).flatmap(lambda n: st.lists(bins, min_size=2 * n, max_size=2 * n))
instances = st.lists(st.lists(polygon, min_size=1, max_size=3), min_size=1, max_size=3)
labelled_boxes = st.lists(st.tuples(words, boxes), max_size=5)
anything = st.lists(
    st.one_of(
        st.text(max_size=8),
        bins.map(lambda b: f"<loc_{b}>"),
        st.sampled_from(["<sep>", "<poly>", "</poly>", "<s>", "</s>", "<pad>", "<od>", "<loc_1000>", "<loc_", "<"]),
    ),
    max_size=40,
).map("".join)  # fmt: skip


def write_instances(several: list[list[list[int]]]) -> str:
    texts = ["<sep>".join(loc(ring) for ring in one) for one in several]
    return texts[0] if len(texts) == 1 else "".join(f"<poly>{t}</poly>" for t in texts)


def agrees(ours: list[float], theirs: list[int]) -> bool:
    """Equal up to the library's cut to whole pixels (in float32: a thousandth's doubt at a boundary)."""
    return len(ours) == len(theirs) and all(
        t in (math.floor(o - 1e-3), math.floor(o + 1e-3)) for o, t in zip(ours, theirs, strict=True)
    )


def library(text: str, task: str) -> dict[str, Any]:
    return _processor().post_process_generation(text=text, task=task, image_size=SIZE)[task]


@untimed
@given(labelled_boxes)
def test_labelled_boxes_are_read_as_written_and_as_the_library_reads_them(
    said: list[tuple[str, list[list[int]]]],
) -> None:
    text = "<s>" + "".join(label + "".join(map(loc, some)) for label, some in said) + "</s>"
    found = read(text, Grammar.LABELLED_BOXES)
    assert [(f.label, bins_of(f)[0]) for f in found] == [(label, b) for label, some in said for b in some]
    theirs = library(text, "<OD>")
    assert [f.label for f in found] == theirs["labels"]
    assert all(agrees(list(f.box), box) for f, box in zip(found, theirs["bboxes"], strict=True))
    theirs = library(text, "<CAPTION_TO_PHRASE_GROUNDING>")
    assert [f.label for f in found] == theirs["labels"]


@untimed
@given(st.lists(st.tuples(words, st.lists(bins, min_size=8, max_size=8)), max_size=5))
def test_quads_are_read_as_the_library_reads_them(said: list[tuple[str, list[int]]]) -> None:
    text = "".join(label + loc(quad) for label, quad in said) + "</s>"
    found = read(text, Grammar.LABELLED_QUADS)
    theirs = library(text, "<OCR_WITH_REGION>")
    assert [f.label for f in found] == theirs["labels"] == [label for label, _ in said]
    quads = [f.rings[0].reshape(-1).tolist() for f in found]
    assert all(agrees(ours, quad) for ours, quad in zip(quads, theirs["quad_boxes"], strict=True))


@untimed
@given(boxes)
def test_proposals_are_read_as_the_library_reads_them(some: list[list[int]]) -> None:
    text = "".join(map(loc, some))
    found = read(text, Grammar.BOXES)
    theirs = library(text, "<REGION_PROPOSAL>")["bboxes"]
    assert all(agrees(list(f.box), box) for f, box in zip(found, theirs, strict=True))
    assert [bins_of(f)[0] for f in found] == some


@untimed
@given(instances)
def test_polygons_are_read_as_the_library_reads_them(several: list[list[list[int]]]) -> None:
    text = write_instances(several)
    found = read(text, Grammar.POLYGONS)
    assert [bins_of(f) for f in found] == several
    theirs = library(text, "<REFERRING_EXPRESSION_SEGMENTATION>")["polygons"]
    for f, polygons in zip(found, theirs, strict=True):
        assert all(
            agrees(ring.reshape(-1).tolist(), flat) for ring, flat in zip(f.rings, polygons, strict=True)
        )


@untimed
@given(words, boxes, words, instances)
def test_open_vocabulary_answers_may_mix_boxes_and_polygons(
    first: str, some: list[list[int]], second: str, several: list[list[list[int]]]
) -> None:
    marked = "".join("<poly>" + "<sep>".join(map(loc, one)) + "</poly>" for one in several)
    found = read(first + "".join(map(loc, some)) + second + marked, Grammar.LABELLED_BOXES_OR_POLYGONS)
    assert [f.shape for f in found] == ["box"] * len(some) + ["polygons"] * len(several)
    assert [f.label for f in found] == [first] * len(some) + [second] * len(several)
    assert [bins_of(f) for f in found] == [[b] for b in some] + several


@settings(deadline=None, max_examples=300)
@given(anything, st.sampled_from(Grammar), st.booleans())
def test_any_string_is_read_without_error(text: str, grammar: Grammar, truncated: bool) -> None:
    ids = ids_of(text)
    for found in parse(ids, grammar, _vocabulary(), SIZE, truncated):
        assert found.location_tokens or found.label_tokens
        assert all(0 <= i < len(ids) for i in (*found.location_tokens, *found.label_tokens))
        assert len(found.location_tokens) == sum(ring.size for ring in found.rings)
        assert "<" not in found.label or grammar is Grammar.TEXT
        for ring in found.rings:
            assert (ring >= 0).all() and (ring <= SIZE).all()


@untimed
@given(st.lists(st.integers(-5, 10**6)), st.sampled_from(Grammar))
def test_any_ids_are_read_without_error(ids: list[int], grammar: Grammar) -> None:
    parse(ids, grammar, _vocabulary(), SIZE)


@untimed
@given(labelled_boxes, st.data())
def test_what_a_cut_leaves_of_boxes_is_the_beginning_of_the_whole(
    said: list[tuple[str, list[list[int]]]], data: st.DataObject
) -> None:
    ids = ids_of("".join(label + "".join(map(loc, some)) for label, some in said))
    whole = parse(ids, Grammar.LABELLED_BOXES, _vocabulary(), SIZE)
    cut = data.draw(st.integers(0, len(ids)))
    part = parse(ids[:cut], Grammar.LABELLED_BOXES, _vocabulary(), SIZE, truncated=True)
    assert [(f.label, f.box) for f in part] == [(f.label, f.box) for f in whole[: len(part)]]


@untimed
@given(instances, st.data())
def test_a_cut_never_leaves_a_polygon_of_another_shape(
    several: list[list[list[int]]], data: st.DataObject
) -> None:
    ids = ids_of(write_instances(several))
    part = parse(
        ids[: data.draw(st.integers(0, len(ids) - 1))], Grammar.POLYGONS, _vocabulary(), SIZE, truncated=True
    )
    left = [ring for f in part for ring in bins_of(f)]
    assert left == [ring for one in several for ring in one][: len(left)]


def test_positions_are_those_of_the_coordinates() -> None:
    text = "a dog" + loc([1, 2, 3, 4]) + loc([5, 6, 7, 8]) + "a cat" + loc([9, 10, 11, 12])
    ids = ids_of(text)
    tokens = [_processor().tokenizer.convert_ids_to_tokens(i) for i in ids]
    for found, wanted in zip(
        parse(ids, Grammar.LABELLED_BOXES, _vocabulary(), SIZE),
        ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]),
        strict=True,
    ):
        assert [tokens[i] for i in found.location_tokens] == [f"<loc_{b}>" for b in wanted]


@pytest.mark.parametrize(
    ("text", "grammar", "wanted"),
    [
        ("dog" + loc([1, 2, 3]), Grammar.LABELLED_BOXES, []),
        ("dog" + loc([1, 2, 3, 4, 5, 6]), Grammar.LABELLED_BOXES, [("dog", [[1, 2, 3, 4]])]),
        (loc([1, 2, 3, 4]) + "dog" + loc([5, 6, 7, 8]), Grammar.LABELLED_BOXES, [("dog", [[5, 6, 7, 8]])]),
        ("dog cat", Grammar.LABELLED_BOXES, []),
        ("a <b> c" + loc([1, 2, 3, 4]), Grammar.LABELLED_BOXES, [("a b> c", [[1, 2, 3, 4]])]),
        ("STOP" + loc(range(16)), Grammar.LABELLED_QUADS, [("STOP", [[0, 1, 2, 3, 4, 5, 6, 7]])]),
        ("STOP" + loc(range(7)), Grammar.LABELLED_QUADS, []),
        (loc([1, 2, 3, 4]), Grammar.POLYGONS, []),
        (loc([1, 2, 3, 4, 5, 6, 7]), Grammar.POLYGONS, [("", [[1, 2, 3, 4, 5, 6]])]),
        ("car" + loc([1, 2, 3, 4]), Grammar.TEXT, [("car", [])]),
        ("5 < 7", Grammar.TEXT, [("5 < 7", [])]),
        ("<pad></s>", Grammar.TEXT, []),
    ],
)
def test_what_does_not_fit_is_left_out(text: str, grammar: Grammar, wanted: list[Any]) -> None:
    assert [(f.label, bins_of(f)) for f in read(text, grammar)] == wanted


def test_labels_outside_ascii_are_kept() -> None:
    # The library's own post-processing would drop these letters.
    assert [f.label for f in read("café 東京" + loc([1, 2, 3, 4]), Grammar.LABELLED_BOXES)] == ["café 東京"]


def test_prompts_and_answer_formats_are_the_processors_own() -> None:
    theirs = _processor()
    kinds = {
        Grammar.TEXT: "pure_text",
        Grammar.BOXES: "bboxes",
        Grammar.LABELLED_QUADS: "ocr",
        Grammar.POLYGONS: "polygons",
        Grammar.LABELLED_BOXES_OR_POLYGONS: "description_with_bboxes_or_polygons",
    }
    sentences = {**theirs.task_prompts_without_inputs, **theirs.task_prompts_with_input}
    assert {task.marker: task.sentence for task in TASKS.values()} == sentences
    for task in TASKS.values():
        theirs_kind = theirs.tasks_answer_post_processing_type[task.marker]
        assert theirs_kind in (
            kinds.get(task.grammar),
            *(
                ("description_with_bboxes", "phrase_grounding")
                if task.grammar is Grammar.LABELLED_BOXES
                else ()
            ),
        )


def test_a_tokenizer_without_location_tokens_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), unk_token="<unk>")
    with pytest.raises(ValueError, match="<loc_0>"):
        Vocabulary(plain)
