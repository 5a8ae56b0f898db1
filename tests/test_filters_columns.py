"""Filters say which columns they look at, and are given no others: that must be all of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.recipe import FilterPart
from data_engine.schema import ANNOTATIONS
from data_engine.verdicts import Judge
from filters.best_region_text import BestRegionText
from filters.blacklisted import Blacklisted
from filters.boilerplate import Boilerplate
from filters.box_size import MinimumSide
from filters.common_text import CommonText
from filters.confirmed import Confirmed
from filters.elements import MinimumComplexity, MostObjects
from filters.fused_members import FusedMembers
from filters.human_first import RepeatsHuman, Unconfirmed
from filters.image_size import ImageSize
from filters.measure import Measure
from filters.most_boxes import MostBoxes
from filters.near_duplicate import NearDuplicate
from filters.near_embedding import NearEmbedding
from filters.nms import Nms
from filters.personal_data import PersonalData
from filters.phrase_nms import PhraseNms
from filters.read_text import ReadText
from filters.repetition import Repetition
from filters.sane_box import SaneBox
from filters.score import MinimumScore
from filters.similarity import MinimumSimilarity
from filters.soft_nms import SoftNms
from filters.text_length import TextLength
from filters.ungrounded import Ungrounded

SIZES = pa.table({"image_id": ["i" * 32, "j" * 32], "width": [60, 30], "height": [40, 40]})

MADE: list[Any] = [
    Blacklisted(), Boilerplate(), MinimumSide(20), CommonText(1), Confirmed(by_class=False, iou=0.99), MinimumComplexity(5), MostObjects(1),
    FusedMembers(), ImageSize(35), Measure("sharpness", 5), MostBoxes(1), NearDuplicate(), NearEmbedding(), Nms(), PersonalData(),
    PhraseNms(), PhraseNms(across="image"), ReadText(0.1), Repetition(0.2), SaneBox(maximum_area=0.3),
    MinimumScore(0.5, {"clip": 0.1}, {"dog": 0.9}), MinimumSimilarity("clip", 0.5), SoftNms(0.5), TextLength(),
    Ungrounded(), BestRegionText("clip"), RepeatsHuman(), Unconfirmed(classes=["dog"]),
]  # fmt: skip


def said() -> pa.Table:
    """Two images, of each all kinds of statements that some filter drops."""
    tables = []
    for image, score in (("i", 0.9), ("j", 0.2)):
        rows, scores, people = (AnnotationRows(source) for source in ("s", "clip", "human"))
        text = Annotation("text", "a dog and a dog and a dog and a dog", "brief", score=score)
        long = Annotation("text", "call 212-555-0123 about the image", "detailed")
        box = Annotation("region", "dog", "phrase", box=(0, 0, 29, 20), score=score)
        told = [
            text,
            long,
            Annotation("text", "call", "ocr"),
            box,
            Annotation("region", "dog", "phrase", box=(0, 0, 29, 19), score=0.5),
            Annotation("phrase", "the image", parent=text, span=(0, 5), box=(1, 1, 20, 20), score=0.4),
            Annotation("phrase", "a dog", parent=text, span=(0, 5), box=(1, 1, 20, 20), score=score),
            Annotation("image", "3", "sharpness"),
            Annotation("region", "a brown dog", "brief", parent=box, box=(0, 0, 29, 20)),
        ]
        rows.add(image * 32, told)
        ids = rows.table()["annotation_id"].to_pylist()
        parts = '{"objects": ["dog", "dog"], "attributes": [], "actions": [], "object_complexity": 1, "action_complexity": 0}'
        scores.add(
            image * 32,
            [
                Annotation("text", granularity="brief", parent=ids[0], score=score),
                Annotation("text", parts, "elements", parent=ids[0]),
                Annotation("region", ids[3], "member", parent=ids[4]),
                Annotation("region", granularity="phrase", parent=ids[3], score=0.3),
                Annotation("region", granularity="brief", parent=ids[8], score=0.6),
            ],
        )
        people.add(
            image * 32, [Annotation("region", "dog", "phrase", box=(0, 0, 29, 20 if image == "i" else 8))]
        )
        tables += [rows.table(), scores.table(), people.table()]
    return pa.concat_tables(tables)


class Anything:
    """The same filter, that does not say what it looks at."""

    def __init__(self, made: Any) -> None:
        self.made = made
        for name in ("cascades", "image_columns", "whole_image", "values"):
            if hasattr(made, name):
                setattr(self, name, getattr(made, name))

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return self.made(annotations)


def judged(made: Any, table: pa.Table) -> pa.Table:
    return Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": made})(table, 0, SIZES)


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_a_filter_judges_alike_by_the_columns_that_it_names(made: Any) -> None:
    table = said()
    columns = Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": made}).columns
    assert "quad" not in columns and ("mask" not in columns or isinstance(made, BestRegionText))
    verdicts = judged(made, table.select(columns))
    assert verdicts == judged(Anything(made), table)
    if not isinstance(
        made, CommonText | NearDuplicate | NearEmbedding
    ):  # those drop nothing before their look
        assert not all(verdicts["kept"].to_pylist()), "this table shows nothing about it"


def test_a_filter_that_names_no_columns_is_given_all() -> None:
    assert (
        Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": Anything(Nms())}).columns == ANNOTATIONS.names
    )


def test_every_filter_that_names_columns_is_among_these() -> None:
    here = {type(made) for made in MADE}
    for path in (Path(__file__).parents[1] / "filters").glob("[a-z]*.py"):
        module = importlib.import_module(f"filters.{path.stem}")
        own = {kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__}
        named = {kind for kind in own if isinstance(kind, type) and hasattr(kind, "columns")}
        assert path.stem == "language" or named <= here
