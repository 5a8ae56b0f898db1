"""Every task from pixels to rows, with a checkpoint that was taught what to say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.entry_point import code_version, signature
from data_engine.errors import ModelLoadError, RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.schema import ANNOTATIONS
from specialists.florence2 import Florence2
from specialists.florence2.grammar import parse
from specialists.florence2.locations import dequantise
from specialists.florence2.prompts import TASKS
from specialists.florence2.renaming import renamed
from tests.toy_florence2 import BRIEF, overfitted, pictures

ALL = list(TASKS)
FIELD = [0.04, 0.03, 79.96, 59.97]
SQUARE = dequantise([100, 200, 500, 600], (80, 60)).tolist()
BALL = dequantise([300, 250, 900, 950], (50, 100)).tolist()
DOG = dequantise([50, 150, 250, 350], (50, 100)).tolist()


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted"))


@pytest.fixture(scope="module")
def images() -> list[Image]:
    return [Image(f"image-{i}", pixels) for i, pixels in enumerate(pictures())]


def florence(taught: str, *tasks: str, **more: Any) -> Florence2:
    return Florence2(taught, tasks=list(tasks), **{"num_beams": 1, "max_new_tokens": 60, **more})


def table(*rows: tuple[str, Annotation], source: str = "earlier") -> pa.Table:
    made = AnnotationRows(source)
    for image_id, annotation in rows:
        assert not made.add(image_id, [annotation])
    return made.table()


def ids(said: pa.Table) -> list[str]:
    return said.column("annotation_id").to_pylist()


def boxes(rows: list[Annotation]) -> list[Any]:
    return [pytest.approx(row.box) for row in rows]


def test_texts(taught: str, images: list[Image]) -> None:
    first, second = florence(taught, "CAPTION", "DETAILED_CAPTION", "MORE_DETAILED_CAPTION", "OCR")(
        images, None
    )
    assert [(r.kind, r.granularity, r.box) for r in first] == [
        ("text", "brief", None), ("text", "detailed", None), ("text", "more_detailed", None), ("text", "ocr", None),
    ]  # fmt: skip
    assert (first[0].text, second[0].text) == BRIEF
    assert first[2].text == "The square is red. The field is green."
    assert first[3].text == "STOP 5 < 7"
    assert all(0 < r.score <= 1 for r in first + second if r.score is not None)
    assert first[0].score is not None and first[0].score > 0.8


def test_captions_keep_the_checkpoints_ban_on_repetition_and_other_tasks_do_not(
    taught: str, images: list[Image]
) -> None:
    # It was taught to say its sentence twice; released checkpoints forbid a repeated trigram.
    text = florence(taught, "DETAILED_CAPTION")(images[:1], None)[0][0].text
    assert text is not None and text.lower().count("a red square on") == 1
    (quads,) = florence(taught, "OCR_WITH_REGION")(images[:1], None)
    assert [q.text for q in quads] == ["STOP", "5"]


def test_regions(taught: str, images: list[Image]) -> None:
    first, second = florence(taught, "OD", "DENSE_REGION_CAPTION", "REGION_PROPOSAL")(images, None)
    assert [(r.kind, r.granularity, r.text) for r in first] == [
        ("region", "phrase", "field"), ("region", "phrase", "square"), ("region", "phrase", "square"),
        ("region", "brief", "a red square"),
        ("region", "proposal", None), ("region", "proposal", None),
    ]  # fmt: skip
    assert boxes(first) == [
        FIELD,
        SQUARE,
        dequantise([600, 610, 700, 720], (80, 60)).tolist(),
        SQUARE,
        FIELD,
        SQUARE,
    ]
    assert [(r.text, r.box) for r in second[:2]] == [
        ("ball", pytest.approx(BALL)),
        ("dog", pytest.approx(DOG)),
    ]
    assert all(r.score is not None and r.score > 0.5 for r in first)


def test_lines_of_text_have_a_quad_and_its_extent(taught: str, images: list[Image]) -> None:
    (rows,) = florence(taught, "OCR_WITH_REGION")(images[:1], None)
    quad = dequantise([10, 10, 90, 12, 88, 40, 9, 38], (80, 60))
    assert rows[0].granularity == "ocr" and rows[0].quad == pytest.approx(quad.tolist())
    assert rows[0].box == pytest.approx((quad[6], quad[1], quad[2], quad[5]))


def test_a_label_of_the_recipe_is_found_as_box_or_as_polygon(taught: str, images: list[Image]) -> None:
    first, second = florence(taught, "OPEN_VOCABULARY_DETECTION", labels=["square"])(images, None)
    assert [(r.text, r.granularity, r.mask) for r in first] == [("square", "phrase", None)]
    assert boxes(first) == [SQUARE]
    region, mask = second
    assert region.text == "square" and region.mask is None
    assert mask.parent is region and mask.mask is not None and mask.mask["size"] == [100, 50]


def test_said_texts_are_grounded_once_per_wording(taught: str, images: list[Image]) -> None:
    said = table(
        ("image-0", Annotation("text", BRIEF[0], "brief")),
        ("image-1", Annotation("text", BRIEF[1], "detailed")),
        ("image-1", Annotation("text", BRIEF[1], "brief")),
        ("image-1", Annotation("text", BRIEF[1], "ocr")),
        ("image-1", Annotation("text", " ", "brief")),
        ("image-9", Annotation("text", "of no image here", "brief")),
    )
    first, second = florence(taught, "CAPTION_TO_PHRASE_GROUNDING")(images, said)
    parents = ids(said)
    assert [(r.text, r.span, r.parent) for r in first] == [
        ("a red square", (0, 12), parents[0]), ("a green field", (16, 29), parents[0]),
    ]  # fmt: skip
    assert boxes(first) == [SQUARE, FIELD]
    assert all(r.kind == "phrase" and r.granularity is None for r in first + second)
    assert [(r.text, r.parent) for r in second] == [
        ("a blue ball", parents[1]), ("a dog", parents[1]), ("a blue ball", parents[2]), ("a dog", parents[2]),
    ]  # fmt: skip


def test_a_text_too_long_for_a_prompt_is_grounded_in_parts(taught: str, images: list[Image]) -> None:
    sentence = "A red square on a green field."
    text = f"{sentence}  It is {sentence[0].lower()}{sentence[1:]}\n{sentence} {sentence}"
    said = table(
        ("image-0", Annotation("text", BRIEF[0], "brief")),
        ("image-0", Annotation("text", text, "more_detailed")),
    )
    specialist = florence(taught, "CAPTION_TO_PHRASE_GROUNDING")
    (whole,) = specialist(images[:1], said)
    task = specialist.tasks[0]
    room = len(specialist.model.prompt_ids(task, f"It is {sentence}"))
    # As if the checkpoint had fewer positions: one sentence fits, two do not.
    specialist.model.positions = specialist.model.image_tokens + room
    (parts,) = specialist(images[:1], said)
    brief, long = ids(said)
    assert [(r.span, r.parent) for r in parts if r.parent == brief] == [((0, 12), brief), ((16, 29), brief)]
    found = sorted((r for r in parts if r.parent == long), key=lambda r: r.span or (0, 0))
    assert len(found) == 8 > len([r for r in whole if r.parent == long])
    after = 0
    for row in found:
        assert row.span is not None and row.span[0] >= after
        after = row.span[1]
        assert text[row.span[0] : row.span[1]] == row.text
    assert [r.text for r in found] == ["A red square", "a green field", "a red square", "a green field"] + [
        "A red square",
        "a green field",
    ] * 2
    assert boxes(found) == [SQUARE, FIELD] * 4
    stored = AnnotationRows("florence2")
    assert stored.add("image-0", parts, (80, 60)) == []
    assert len(set(stored.table()["annotation_id"].to_pylist())) == len(parts)
    alone = florence(taught, "CAPTION_TO_PHRASE_GROUNDING", max_prompts_per_batch=1)
    alone.model.positions = specialist.model.positions
    again = alone(images[:1], said)[0]
    assert [(r.text, r.span, r.box) for r in again] == [(r.text, r.span, r.box) for r in parts]


def test_a_phrase_that_stands_nowhere_in_its_text_is_told_once_for_all_parts(
    taught: str, images: list[Image]
) -> None:
    # The picture's own phrases are answered whatever the text; in these sentences they do not stand.
    sentence = "Some quiet music plays here."
    said = table(("image-0", Annotation("text", f"{sentence} {sentence[:-1]} again. {sentence}", "detailed")))
    specialist = florence(taught, "CAPTION_TO_PHRASE_GROUNDING")
    room = len(specialist.model.prompt_ids(specialist.tasks[0], sentence))
    specialist.model.positions = specialist.model.image_tokens + room + 2
    (rows,) = specialist(images[:1], said)
    spanless = [(r.text, r.box) for r in rows if r.span is None]
    assert spanless and len(spanless) == len(set(spanless))


def test_sources_narrow_what_is_answered_to(taught: str, images: list[Image]) -> None:
    said = pa.concat_tables(
        [
            table(("image-0", Annotation("text", BRIEF[0], "brief")), source=source)
            for source in ("alt_text", "captions")
        ]
    )
    (rows,) = florence(taught, "CAPTION_TO_PHRASE_GROUNDING", sources=["captions"])(images[:1], said)
    assert {r.parent for r in rows} == {ids(said)[1]}


def test_phrases_become_masks(taught: str, images: list[Image]) -> None:
    said = table(
        ("image-0", Annotation("phrase", "a red square", box=SQUARE, span=(0, 12))),
        ("image-1", Annotation("phrase", "a dog", box=DOG)),
        ("image-1", Annotation("phrase", "a dog", box=(33, 68, 49, 98))),
        ("image-1", Annotation("phrase", box=DOG, mask={"size": [100, 50], "counts": "T1"})),
    )
    first, second = florence(taught, "REFERRING_EXPRESSION_SEGMENTATION")(images, said)
    assert [(r.kind, r.parent, r.text) for r in first] == [("phrase", ids(said)[0], None)]
    assert boxes(first) == [SQUARE]
    # Two boxes of one phrase: each has the polygons that lie in it.
    assert [r.parent for r in second] == ids(said)[1:3]
    assert boxes(second) == [DOG, dequantise([700, 700, 950, 950], (50, 100)).tolist()]


def test_regions_are_named_described_read_and_outlined(taught: str, images: list[Image]) -> None:
    said = table(
        ("image-0", Annotation("region", "thing", "phrase", box=SQUARE)),
        ("image-0", Annotation("region", "again", "brief", box=SQUARE, parent="another row")),
        ("image-0", Annotation("text", "no region", "brief")),
    )
    tasks = ("REGION_TO_CATEGORY", "REGION_TO_DESCRIPTION", "REGION_TO_OCR", "REGION_TO_SEGMENTATION")
    (rows,) = florence(taught, *tasks)(images[:1], said)
    assert [(r.kind, r.granularity, r.text, r.parent) for r in rows] == [
        ("region", "phrase", "square", ids(said)[0]),
        ("region", "brief", "a red square", ids(said)[0]),
        ("region", "ocr", "STOP", ids(said)[0]),
        ("region", None, None, ids(said)[0]),
    ]
    assert boxes(rows[:3]) == [SQUARE] * 3
    assert rows[3].mask is not None


def test_without_needs_it_answers_to_itself_in_waves(taught: str, images: list[Image]) -> None:
    said = florence(taught, "REFERRING_EXPRESSION_SEGMENTATION", "CAPTION_TO_PHRASE_GROUNDING", "CAPTION")(
        images, None
    )
    for image, rows in zip(images, said, strict=True):
        text, phrases, masks = rows[0], [r for r in rows if r.span], [r for r in rows if r.mask]
        assert text.kind == "text" and len(phrases) == 2 and masks
        assert all(p.parent is text for p in phrases)
        assert all(any(m.parent is p for p in phrases) for m in masks)
        # Parents stand before their children: every row can be stored.
        stored = AnnotationRows("florence2")
        assert stored.add(image.image_id, rows) == []
        assert stored.table().schema == ANNOTATIONS


def test_what_is_found_bears_the_surest_name_that_was_asked_for() -> None:
    cup = Annotation("region", "cup", "phrase", box=(0, 0, 20, 20), score=0.81)
    hat = Annotation("region", "hat", "phrase", box=(30, 30, 40, 40), score=0.6)
    line = Annotation("region", "STOP", "ocr", box=(0, 0, 9, 9), score=0.6)
    weak = Annotation("region", "key", "phrase", cup, box=cup.box, score=0.1)
    name = Annotation("region", "star", "phrase", cup, box=cup.box, score=0.25)
    told = Annotation("region", "a red star", "brief", cup, box=cup.box, score=0.5)
    others = Annotation("region", "bell", "phrase", "another source's row", box=cup.box, score=0.9)
    assert renamed([cup, hat, line, weak, name, told, others]) == [cup, hat, line, told, others]
    assert (cup.text, cup.score) == ("star", pytest.approx(0.45)) and told.parent is cup
    assert (hat.text, hat.score, line.text) == ("hat", 0.6, "STOP")


def test_rename_asks_about_what_od_found(taught: str, images: list[Image]) -> None:
    tasks = ("OD", "REGION_TO_CATEGORY", "REGION_TO_DESCRIPTION")
    plain, both = (florence(taught, *tasks, rename=rename)(images[:1], None)[0] for rename in (False, True))
    things = [row for row in both if row.parent is None]
    assert [row.box for row in things] == [row.box for row in plain if row.parent is None]
    assert len(both) == len(plain) - len(things) and len(things) == 3
    square = next(row for row in things if row.box == pytest.approx(SQUARE))
    assert square.text == "square" and any(r.parent is square and r.text == "a red square" for r in both)
    assert AnnotationRows("florence2").add(images[0].image_id, both) == []
    with pytest.raises(RecipeError, match="REGION_TO_CATEGORY"):
        florence(taught, "OD", rename=True)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_image_says_the_same_in_any_company(taught: str, images: list[Image], beams: int) -> None:
    specialist = florence(taught, *ALL, labels=["square", "dog"], num_beams=beams, max_new_tokens=40)
    crowd = [images[1], Image("blank", np.zeros((7, 3, 3), np.uint8)), images[0]]
    together = specialist(crowd, None)[2]
    alone = specialist(images[:1], None)[0]
    key = [(r.kind, r.granularity, r.text, r.span, r.mask) for r in together]
    assert key == [(r.kind, r.granularity, r.text, r.span, r.mask) for r in alone]
    assert [r.box for r in together] == [r.box for r in alone]
    assert [r.score for r in together] == pytest.approx([r.score for r in alone], abs=1e-3)


def test_a_small_bound_on_prompts_changes_nothing(taught: str, images: list[Image]) -> None:
    wide = florence(taught, "CAPTION", "OD", "CAPTION_TO_PHRASE_GROUNDING")(images, None)
    narrow = florence(taught, "CAPTION", "OD", "CAPTION_TO_PHRASE_GROUNDING", max_prompts_per_batch=1)(
        images, None
    )
    for a, b in zip(wide, narrow, strict=True):
        assert [(r.text, r.box, r.span) for r in a] == [(r.text, r.box, r.span) for r in b]


def test_rows_below_the_least_score_are_left_out_with_what_hangs_on_them(
    taught: str, images: list[Image]
) -> None:
    tasks = ("CAPTION", "CAPTION_TO_PHRASE_GROUNDING", "REFERRING_EXPRESSION_SEGMENTATION", "OD")
    everything = florence(taught, *tasks)(images[:1], None)[0]
    nothing_located = florence(taught, *tasks, min_score=1.01)(images[:1], None)[0]
    assert [r.text for r in nothing_located] == [r.text for r in everything if r.kind == "text"]


def test_a_box_scores_by_its_label_and_by_the_bins_around_its_sides(taught: str, images: list[Image]) -> None:
    (narrow,) = florence(taught, "OD", score_window=0)(images[:1], None)
    (wide,) = florence(taught, "OD", score_window=20)(images[:1], None)
    assert [(r.text, r.box) for r in wide] == [(r.text, r.box) for r in narrow]
    for a, b in zip(narrow, wide, strict=True):
        assert a.score is not None and b.score is not None and a.score < b.score <= 1
    specialist = florence(taught, "OD", score_window=0)
    (answer,) = specialist.model.answers(
        specialist.model.features([images[0].pixels], 1),
        [specialist.model.prompt_ids(specialist.tasks[0])],
        1,
        99,
        0,
    )
    first = parse(answer.ids, specialist.tasks[0].grammar, specialist.model.vocabulary, (80, 60))[0]
    parts = answer.score(first.label_tokens), answer.score(first.location_tokens)
    assert narrow[0].score == pytest.approx((parts[0] * parts[1]) ** 0.5, rel=1e-4)


def test_no_images_and_nothing_said_are_no_error(taught: str, images: list[Image]) -> None:
    specialist = florence(taught, "CAPTION_TO_PHRASE_GROUNDING")
    assert specialist([], None) == []
    assert specialist(images, ANNOTATIONS.empty_table()) == [[], []]


def test_a_task_about_statements_that_nobody_makes_says_so(taught: str, images: list[Image]) -> None:
    with pytest.raises(SpecialistError, match="REFERRING_EXPRESSION_SEGMENTATION") as caught:
        florence(taught, "CAPTION", "REFERRING_EXPRESSION_SEGMENTATION")(images, None)
    assert "needs" in caught.value.hint and "CAPTION_TO_PHRASE_GROUNDING" in caught.value.hint


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tasks": ["OD", "CAPTIONS"]}, "did you mean 'CAPTION'"),
        ({"tasks": []}, "list of tasks"),
        ({"tasks": ["OPEN_VOCABULARY_DETECTION"]}, "needs labels"),
        ({"tasks": ["OD"], "labels": ["dog"]}, "labels are given"),
        ({"tasks": ["OD"], "num_beams": 0}, "num_beams"),
        ({"tasks": ["OD"], "score_window": -1}, "score_window"),
        ({"tasks": ["OD"], "max_prompts_per_batch": 0}, "max_prompts_per_batch"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_loading(more: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Florence2("/nowhere", **more)


def test_weights_that_are_not_there_are_one_line() -> None:
    with pytest.raises(ModelLoadError) as caught:
        Florence2("./nowhere/at/all", tasks=["OD"])
    assert "\n" not in caught.value.message


def test_a_recipe_can_name_it_without_importing_it() -> None:
    takes = signature("specialists.florence2:Florence2")
    assert takes is not None and takes.required == ("model", "tasks") and "num_beams" in takes.optional
    assert code_version("specialists.florence2:Florence2") == "specialists.florence2:Florence2 version 3"


def test_importing_the_package_loads_no_model_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, specialists.florence2; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
