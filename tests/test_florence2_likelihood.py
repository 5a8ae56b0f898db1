"""What a taught toy model finds likely: what it was taught, and little else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.entry_point import code_version, signature
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from filters.similarity import MinimumSimilarity
from specialists.florence2.likelihood import Likelihood
from specialists.florence2.locations import dequantise
from tests.toy_florence2 import BRIEF, overfitted, pictures

SQUARE = dequantise([100, 200, 500, 600], (80, 60)).tolist()
SMALL = dequantise([600, 610, 700, 720], (80, 60)).tolist()
FIELD = dequantise([0, 0, 999, 999], (80, 60)).tolist()
ELSEWHERE = dequantise([620, 50, 980, 480], (80, 60)).tolist()

Scores = dict[tuple[str, str | None], float]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(overfitted(tmp_path_factory.getbasetemp() / "florence2_overfitted"))


@pytest.fixture
def images() -> list[Image]:
    return [Image(f"image-{i}", pixels) for i, pixels in enumerate(pictures())]


def table(*rows: Annotation, image: str = "image-0", source: str = "noisy") -> pa.Table:
    made = AnnotationRows(source)
    assert made.add(image, rows) == []
    return made.table()


def judged(judge: Likelihood, image: Image, said: pa.Table) -> dict[str, dict[str, float]]:
    """By annotation id the measures and scores."""
    (rows,) = judge([image], said)
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        assert row.text is None and row.box is None and row.score is not None and 0 <= row.score <= 1
        assert isinstance(row.parent, str) and row.granularity is not None
        assert row.granularity not in found.setdefault(row.parent, {})
        found[row.parent][row.granularity] = row.score
    return found


def test_what_was_taught_is_likely_and_errors_are_not(taught: str, images: list[Image]) -> None:
    right = Annotation("text", BRIEF[0], "brief")
    wrong = Annotation("text", "a blue square on a green field", "brief")
    description = Annotation("region", "square", "phrase", box=SQUARE)
    said = table(
        right,
        wrong,
        description,
        Annotation("region", "a red square", "brief", parent=description, box=SQUARE),
        Annotation("region", "ball", "phrase", box=SQUARE),
        Annotation("region", "square", "phrase", box=ELSEWHERE),
        Annotation("phrase", "a red square", parent=right, span=(0, 12), box=SQUARE),
        Annotation("phrase", "a green field", parent=right, span=(16, 29), box=FIELD),
        Annotation("phrase", "a green field", parent=wrong, span=(17, 30), box=ELSEWHERE),
    )
    found = judged(Likelihood(taught, ["noisy"]), images[0], said)
    rows = said.column("annotation_id").to_pylist()
    assert [sorted(found[row]) for row in rows] == [
        ["told"], ["told"], ["located", "named"], ["named"], ["located", "named"], ["located", "named"],
        ["located"], ["located"], ["located"],
    ]  # fmt: skip
    assert found[rows[0]]["told"] > 0.8 > 0.2 > found[rows[1]]["told"]
    assert found[rows[2]]["named"] > 0.8 > 0.2 > found[rows[4]]["named"]
    assert found[rows[3]]["named"] > 0.8
    assert found[rows[2]]["located"] > 0.8 > 0.2 > found[rows[5]]["located"]
    assert min(found[rows[6]]["located"], found[rows[7]]["located"]) > 0.8 > 0.2 > found[rows[8]]["located"]


def test_only_the_named_sources_and_tasks_are_judged(taught: str, images: list[Image]) -> None:
    said = pa.concat_tables(
        [
            table(
                Annotation("text", BRIEF[0], "brief"), Annotation("region", "square", "phrase", box=SQUARE)
            ),
            table(Annotation("text", BRIEF[0], "brief"), source="other"),
        ]
    )
    found = judged(Likelihood(taught, ["noisy"], tasks=["CAPTION"]), images[0], said)
    assert found.keys() == {said.column("annotation_id")[0].as_py()}


def test_what_cannot_be_asked_about_is_left_out(taught: str, images: list[Image]) -> None:
    said = table(
        Annotation("text", "WRITING", "ocr"),
        Annotation("text", " <", "brief"),
        Annotation("region", None, "proposal", box=SQUARE),
        Annotation("region", "<", "phrase", box=SQUARE),
        Annotation("region", "square", "ocr", box=SQUARE),
        Annotation("region", "square", "phrase", box=SQUARE, mask={"size": [60, 80], "counts": "T1"}),
        Annotation("phrase", "a phrase of no text", parent="gone", box=SQUARE),
    )
    judge = Likelihood(taught, ["noisy"])
    assert judge(images, said) == [[], []]
    assert judge([], said) == []


def test_an_image_is_judged_alike_in_any_company_and_batch(taught: str, images: list[Image]) -> None:
    text = Annotation("text", BRIEF[0], "brief")
    first = [text, Annotation("phrase", "a red square", parent=text, span=(0, 12), box=SQUARE)]
    first += [Annotation("region", "square", "phrase", box=box) for box in (SQUARE, SMALL)]
    second = [
        Annotation("text", BRIEF[1], "detailed"),
        Annotation("region", "dog", "phrase", box=(3, 15, 12, 35)),
    ]
    said = pa.concat_tables([table(*first), table(*second, image="image-1")])
    together = Likelihood(taught, ["noisy"])(images, said)
    alone = Likelihood(taught, ["noisy"], max_prompts_per_batch=1)
    for image, rows in zip(images, together, strict=True):
        (again,) = alone([image], said)
        assert [(r.parent, r.granularity) for r in rows] == [(r.parent, r.granularity) for r in again]
        assert [r.score for r in rows] == pytest.approx([r.score for r in again], abs=1e-4)


def test_many_boxes_and_long_texts_are_judged_in_parts(taught: str, images: list[Image]) -> None:
    judge = Likelihood(taught, ["noisy"])
    sentence = "A red square on a green field."
    text = Annotation("text", " ".join([sentence] * 3), "more_detailed")
    rows = [text]
    rows += [Annotation("phrase", "a green field", parent=text, box=(1 + i, 1, 40 + i, 40)) for i in range(6)]
    rows += [Annotation("region", "square", "phrase", box=(1 + i, 1, 20 + i, 30)) for i in range(30)]
    judge.model.positions = judge.model.image_tokens + len(
        judge.model.prompt_ids(judge.tasks["CAPTION_TO_PHRASE_GROUNDING"], sentence)
    )
    found = judged(judge, images[0], table(*rows))
    assert len(found) == len(rows)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tasks": ["OCR"]}, "judges no statement"),
        ({"sources": []}, "list of sources"),
        ({"sources": "noisy"}, "list of sources"),
        ({"max_prompts_per_batch": 0}, "max_prompts_per_batch"),
        ({"window": -1}, "window"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_loading(more: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Likelihood("/nowhere", **{"sources": ["noisy"], **more})


def test_nobody_to_judge_is_one_line(taught: str, images: list[Image]) -> None:
    with pytest.raises(SpecialistError, match="nothing to judge") as caught:
        Likelihood(taught, ["noisy"])(images, None)
    assert "needs" in caught.value.hint


def test_a_recipe_can_name_it_without_importing_it() -> None:
    takes = signature("specialists.florence2.likelihood:Likelihood")
    assert takes is not None and takes.required == ("model", "sources")
    version = code_version("specialists.florence2.likelihood:Likelihood")
    assert version == "specialists.florence2.likelihood:Likelihood version 1"


def test_a_filter_drops_what_is_unlikely_by_one_measure(taught: str, images: list[Image]) -> None:
    said = table(
        Annotation("region", "square", "phrase", box=SQUARE),
        Annotation("region", "ball", "phrase", box=SQUARE),
        Annotation("region", "square", "phrase", box=ELSEWHERE),
    )
    doubt = AnnotationRows("doubt")
    doubt.add("image-0", Likelihood(taught, ["noisy"])(images[:1], said)[0])
    both = pa.concat_tables([said, doubt.table()])
    kept = {
        measure: MinimumSimilarity("doubt", 0.3, measure=measure)(both).to_pylist()[:3]
        for measure in ("named", "located")
    }
    assert kept["named"][:2] == [True, False]
    assert kept["located"][0] and not kept["located"][2]
    assert MinimumSimilarity("doubt", 0.3, measure="told")(both).to_pylist()[:3] == [True] * 3
