"""Labels judged by a detector: each kind of mistake lowers its own score, on made-up boxes and on real photos."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.image import Image
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart
from data_engine.runner.progress import Reporter
from pipelines.annotate import annotate
from specialists.label_quality import LabelQuality

A, NEAR, FAR = (0, 0, 10, 10), (0, 0, 10, 8), (50, 50, 60, 60)


def said(source: str, *boxes: tuple[str, tuple[int, ...], float | None]) -> pa.Table:
    rows = AnnotationRows(source)
    assert not rows.add("i" * 32, [Annotation("region", n, "phrase", box=b, score=s) for n, b, s in boxes])
    return rows.table()


def judged(labels: pa.Table, found: pa.Table, **args: Any) -> dict[str, list[float]]:
    image = Image("i" * 32, np.zeros((80, 80, 3), np.uint8))
    (rows,) = LabelQuality("human", "yolo", **args)([image], pa.concat_tables([labels, found]))
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row.granularity or "", []).append(row.score or 0.0)
    return scores


def test_each_mistake_lowers_its_own_score() -> None:
    labels = said("human", ("cup", NEAR, None), ("dog", FAR, None))
    found = said(
        "yolo", ("CUP", A, 0.9), ("cat", FAR, 0.8), ("tree", (30, 0, 40, 10), 0.6), ("cup", FAR, 0.1)
    )
    scores = judged(labels, found)
    assert scores["well_located"] == [pytest.approx(0.8), 0.5]
    assert scores["well_named"] == [pytest.approx((1 + 0.9 * 0.8) / 2), pytest.approx(0.1)]
    assert scores["not_overlooked"] == [pytest.approx(1 - 0.9 * 0.2), pytest.approx(0.2), pytest.approx(0.4)]
    alike = judged(labels, found, same={"dog": ["cat"]})
    assert alike["well_named"][1] == pytest.approx(0.9)


def test_without_labels_or_detections_nothing_is_known() -> None:
    empty = said("human").slice(0, 0)
    assert judged(said("human", ("cup", A, None)), empty) == {"well_located": [0.5], "well_named": [0.5]}
    assert judged(empty, said("yolo", ("cup", A, 0.9))) == {"not_overlooked": [pytest.approx(0.1)]}
    with pytest.raises(SpecialistError, match="nothing to judge"):
        LabelQuality("human", "yolo")([], None)
    for args in ({"judged": "a", "witness": "a"}, {"judged": "a", "witness": "b", "least": 2}):
        with pytest.raises(RecipeError):
            LabelQuality(**args)


def auc(bad: list[float], good: list[float]) -> float:
    """How often a wrong one is ranked below a right one; equal ones count half."""
    low, high = np.array(bad)[:, None], np.array(good)[None]
    return float(((low < high) + 0.5 * (low == high)).mean())


class Spoiled:
    """People's boxes, of which one in four is moved, one in four renamed and one in four left out."""

    VERSION = 1

    def __call__(self, images: Any, rows: pa.Table) -> list[list[Annotation]]:
        made = []
        for image in images:
            boxes = [
                r
                for r in rows.to_pylist()
                if r["image_id"] == image.image_id and r["granularity"] == "phrase"
            ]
            spoiled = []
            for row in boxes:
                rng = np.random.default_rng(int(row["annotation_id"][:12], 16))
                x0, y0, x1, y1 = row["box"]
                what = ("right", "moved", "renamed", "left out")[int(rng.integers(4))]
                if what == "moved":
                    angle, far = rng.uniform(0, 2 * math.pi), 0.5
                    dx, dy = far * (x1 - x0) * math.cos(angle), far * (y1 - y0) * math.sin(angle)
                    x0, x1 = np.clip([x0 + dx, x1 + dx], 0, image.width)
                    y0, y1 = np.clip([y0 + dy, y1 + dy], 0, image.height)
                if what != "left out" and x1 > x0 and y1 > y0:
                    name = "toaster" if what == "renamed" else row["text"]
                    spoiled.append(Annotation("region", name, "phrase", box=(x0, y0, x1, y1)))
            made.append(spoiled)
        return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_on_photos_the_ranking_finds_what_was_spoiled_on_purpose(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ultralytics")
    ingest(str(shared / "data" / "photos"), str(tmp_path / "ds"))
    dataset = Dataset.open(str(tmp_path / "ds"))
    weights = str(shared / "weights" / "yolo26n.pt")
    parts = {
        "yolo": SpecialistPart(use="specialists.detector:Detector", args={"weights": weights, "confidence": 0.3}, batch=8),
        "spoiled": SpecialistPart(use="tests.test_label_quality:Spoiled", needs=["human"]),
        "quality": SpecialistPart(
            use="specialists.label_quality:LabelQuality", args={"judged": "spoiled", "witness": "yolo"}, needs=["spoiled", "yolo"]
        ),
    }  # fmt: skip
    annotate(
        dataset,
        Recipe(name="t", specialists=parts).check(),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    rows = sql(
        dataset,
        """SELECT q.granularity AS what, q.score, r.source, r.text AS name,
            coalesce(max(box_iou(r.box, h.box)), 0) AS any_box,
            coalesce(max(CASE WHEN h.text = r.text THEN box_iou(r.box, h.box) END), 0) AS same_name,
            coalesce(max(CASE WHEN s.text = r.text THEN box_iou(r.box, s.box) END), 0) AS labelled
        FROM annotations q JOIN regions r ON r.annotation_id = q.parent_id
        LEFT JOIN regions h ON h.image_id = r.image_id AND h.source = 'human'
        LEFT JOIN regions s ON s.image_id = r.image_id AND s.source = 'spoiled'
        WHERE q.source = 'quality' GROUP BY ALL""",
    ).to_pylist()

    def by(what: str, wrong: Callable[[dict[str, Any]], bool]) -> list[float]:
        return [row["score"] for row in rows if row["what"] == what and wrong(row)]

    def right(row: dict[str, Any]) -> bool:
        return bool(row["same_name"] > 0.99)

    found = {
        "badly located": auc(
            by("well_located", lambda r: r["name"] != "toaster" and not right(r)), by("well_located", right)
        ),
        "renamed": auc(
            by("well_named", lambda r: r["name"] == "toaster" and r["any_box"] > 0.99),
            by("well_named", right),
        ),
        "overlooked": auc(
            by("not_overlooked", lambda r: r["same_name"] >= 0.5 and r["labelled"] < 0.1),
            by("not_overlooked", lambda r: r["same_name"] >= 0.5 and r["labelled"] >= 0.5),
        ),
    }
    with capsys.disabled():
        print("", *(f"{name}: AUC {value:.3f}" for name, value in found.items()), sep="\n")
    assert found["badly located"] > 0.75 and found["renamed"] > 0.75 and found["overlooked"] > 0.9
