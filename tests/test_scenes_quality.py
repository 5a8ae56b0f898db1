"""Measuring a recipe's specialists on drawn scenes, with specialists that know the truth or part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation
from data_engine.dataset import Dataset
from data_engine.image import Image
from data_engine.recipe import Recipe, read_recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.world import PRETRAINING, TARGET
from pipelines.scenes_quality import Figure, compare, measure, table

pytest.importorskip("faster_coco_eval")

VERSION = 1


class Parrot:
    """Repeats as its own what was said, but for every `drop`-th image."""

    def __init__(self, drop: int = 0) -> None:
        self.drop = drop
        self.seen = 0

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        return [self._again(image, rows_of(image, said)) for image in images]

    def _again(self, image: Image, rows: Sequence[dict[str, Any]]) -> list[Annotation]:
        self.seen += 1
        if self.drop and self.seen % self.drop == 0:
            return []
        made: dict[str, Annotation] = {}
        for row in rows:
            made[row["annotation_id"]] = copy_of(row, made.get(row["parent_id"]))
        return list(made.values())


class Answers:
    """Says of the statements that it is given what their own source says of them: phrases, masks, texts."""

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        return [
            [copy_of(row, row["parent_id"]) for row in rows_of(image, said) if row["parent_id"]]
            for image in images
        ]


class Trusts:
    """Gives every statement the same score, or one that depends on whether a source said it."""

    def __init__(self, source: str | None = None, sources: list[str] | None = None) -> None:
        self.source = source

    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        return [
            [
                Annotation(
                    row["kind"], None, row["granularity"], row["annotation_id"], score=self._score(row)
                )
                for row in rows_of(image, said)
                if row["text"]
            ]
            for image in images
        ]

    def _score(self, row: dict[str, Any]) -> float:
        return 0.5 if self.source is None else float(row["source"] == self.source)


class Silent:
    def __call__(self, images: Sequence[Image], said: pa.Table | None) -> list[list[Annotation]]:
        return [[] for _ in images]


def rows_of(image: Image, said: pa.Table | None) -> list[dict[str, Any]]:
    return [row for row in said.to_pylist() if row["image_id"] == image.image_id] if said is not None else []


def copy_of(row: dict[str, Any], parent: Annotation | str | None) -> Annotation:
    same = {name: row[name] for name in ("text", "granularity", "span", "box", "quad", "mask")}
    return Annotation(row["kind"], parent=parent, score=0.9, **same)


RECIPE = """
name: toys
specialists:
  parrot: {use: "tests.test_scenes_quality:Parrot", needs: [truth]}
  half: {use: "tests.test_scenes_quality:Parrot", needs: [truth], args: {drop: 2}, batch: 3}
  answers: {use: "tests.test_scenes_quality:Answers", needs: [half]}
  trusting: {use: "tests.test_scenes_quality:Trusts", needs: [half], args: {sources: [half]}}
  knowing: {use: "tests.test_scenes_quality:Trusts", needs: [half], args: {source: truth}}
  silent: {use: "tests.test_scenes_quality:Silent"}
filters:
  unsure:
    use: filters.score:MinimumScore
    args: {minimum: 0.25}
    where: {kind: region, granularity: phrase, source: [parrot, half]}
"""

COUNT = 12


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(RECIPE, "the toys' recipe")


@pytest.fixture(scope="module")
def found(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, Any]]:
    folder, lines = tmp_path_factory.mktemp("quality"), []
    figures = compare(
        folder,
        recipe,
        [PRETRAINING, TARGET],
        COUNT,
        reporter=Reporter(terminal=False),
        say=lines.append,
        runner="inline",
    )
    return folder, lines, figures


def values(figures: Sequence[Figure], specialist: str) -> dict[str, float]:
    return {figure.measure: figure.value for figure in figures if figure.specialist == specialist}


@pytest.mark.parametrize("world", ["pretraining", "target"])
def test_what_repeats_the_truth_is_perfect_in_every_measure(found, world: str) -> None:
    parrot = values(found[2][world], "parrot")
    # A text that is its image's only reference has CIDEr's most, 10.
    best = {name: 10.0 if "CIDEr" in name else 1.0 for name in parrot}
    assert parrot == pytest.approx(best)
    assert [name.split(":")[0] for name in parrot] == [
        *["boxes"] * 3, "boxes, whatever they are called", *["masks"] * 2, *["brief texts"] * 8, *["detailed texts"] * 8,
        *["more_detailed texts"] * 8, "ocr texts", *["lines of scores >= 0"] * 3,
    ]  # fmt: skip
    assert "boxes: F1 of scores >= 0.25" in parrot, "from where the recipe's own filter keeps"


def test_a_half_of_the_images_has_half_the_recall_and_all_of_the_precision(found) -> None:
    half = values(found[2]["pretraining"], "half")
    assert 0 < half["boxes: AP50"] < 1 and 0 < half["lines of scores >= 0: read exactly"] < 1
    assert half["lines of scores >= 0: precision"] == half["brief texts: every noun phrase is true"] == 1
    over = {f.measure: f.over for f in found[2]["pretraining"] if f.specialist == "half"}
    assert over["brief texts: every noun phrase is true"] == COUNT / 2


@pytest.mark.parametrize("world", ["pretraining", "target"])
def test_what_answers_to_others_is_asked_about_the_truth(found, world: str) -> None:
    """In the recipe it is fed by a source that has lost half; its own figures are perfect all the same."""
    assert values(found[2][world], "answers") == dict.fromkeys(
        (
            "phrases of truth's texts: recall@1",
            "phrases of truth's texts: merged boxes",
            "phrases of truth's texts: all boxes",
            "phrases of truth's texts: precision",
            "masks of truth's boxes: mean IoU",
            "masks of truth's phrases: mean IoU",
            "description of truth's boxes: exact",
        ),
        1.0,
    )


def test_scores_are_held_against_those_of_wrong_statements(found) -> None:
    measures = [f"scores: right {w} above wrong (AUC)" for w in ("texts", "categories", "descriptions")]
    figures = found[2]["pretraining"]
    assert values(figures, "knowing") == dict.fromkeys(measures, 1.0)
    assert values(figures, "trusting") == dict.fromkeys(measures, 0.5)


def test_one_table_shows_the_worlds_side_by_side(found) -> None:
    _, lines, figures = found
    place = lines.index("recipe toys, 12 scenes of seed 0 in each world:")
    head, *rows = lines[place + 1 :]
    assert head.split() == ["pretraining", "target"]
    assert rows[0].split() == ["parrot", "boxes:", "AP", "1.000", "1.000"]
    assert len(rows) == len({(f.specialist, f.measure) for some in figures.values() for f in some})
    assert not any("silent" in row for row in rows)
    assert {len(row) for row in (head, *rows)} == {len(head)}


def test_a_second_run_repeats_the_figures_and_makes_nothing_anew(found, recipe: Recipe) -> None:
    folder, _, figures = found
    url = str(folder / f"target-{COUNT}-of-seed-0" / "dataset")
    runs = len(Dataset.open(url).store.files("runs"))
    again = measure(folder, recipe, TARGET, COUNT, reporter=Reporter(terminal=False), say=lambda line: None)
    assert again == figures["target"]
    assert len(Dataset.open(url).store.files("runs")) == runs


def test_a_figure_that_one_world_lacks_is_a_dash() -> None:
    some = {
        "a": [Figure("one", "x", 0.25, 4), Figure("two", "x", float("nan"), 0)],
        "b": [Figure("two", "x", 1.0, 4), Figure("one", "y", 0.5, 4)],
    }
    assert [line.split() for line in table(some)] == [
        ["a", "b"],
        ["one", "x", "0.250", "-"],
        ["one", "y", "-", "0.500"],
        ["two", "x", "-", "1.000"],
    ]
    assert list(table({})) == ["    "]
