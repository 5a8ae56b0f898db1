"""Sets of statements about one small image, drawn by hypothesis, and merges of them as plain rows."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.image import Image
from data_engine.schema import ANNOTATIONS, CHANGE, MEMBER
from specialists.merge import Merge

SIDE = 64
IMAGE = Image("i" * 32, np.zeros((SIDE, SIDE, 3), np.uint8))
WORDS = ["a red star", "two cups", "the star", "a cup"]
MASKS = [{"size": [SIDE, SIDE], "counts": counts} for counts in ("0PP4", "1oo3", "2no3")]

# Whole pixels and few places, so that overlaps, ties and boxes in boxes come up often.
corner = st.integers(0, 8).map(lambda v: 4 * v)
side = st.integers(1, 6).map(lambda v: 4 * v)
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, side, side)
score = st.sampled_from([None, 0.25, 0.5, 0.75, 1.0])
likelihood = st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0])


def _things(draw: st.DrawFn) -> list[Annotation]:
    made: list[Annotation] = []
    places = st.tuples(st.sampled_from(["star", "cup"]), box)
    for name, place in draw(st.lists(places, max_size=5, unique=True)):
        region = Annotation("region", name, "phrase", box=place, score=draw(score))
        made.append(region)
        if draw(st.booleans()):
            made.append(Annotation("region", f"a small {name}", "brief", region, box=place))
        if draw(st.booleans()):
            made.append(Annotation("region", parent=region, box=place, mask=draw(st.sampled_from(MASKS))))
    for text, place in draw(
        st.lists(st.tuples(st.sampled_from(["STOP", "GO"]), box), max_size=2, unique=True)
    ):
        x0, y0, x1, y1 = place
        quad = (x0, y0, x1, y0, x1, y1, x0, y1)
        made.append(Annotation("region", text, "ocr", box=place, quad=quad, score=draw(score)))
    made += [
        Annotation("region", None, "proposal", box=p) for p in draw(st.lists(box, max_size=2, unique=True))
    ]
    return made


def _told(draw: st.DrawFn) -> list[Annotation]:
    made: list[Annotation] = []
    for granularity in draw(st.lists(st.sampled_from(["brief", "detailed"]), unique=True)):
        words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True))
        text = Annotation("text", " and ".join(words) + ".", granularity, score=draw(score))
        made.append(text)
        for phrase in words:
            start = (text.text or "").index(phrase)
            for place in draw(st.lists(box, max_size=2, unique=True)):
                span = (start, start + len(phrase))
                link = Annotation("phrase", phrase, None, text, span, place, score=draw(score))
                made.append(link)
                if draw(st.booleans()):
                    made.append(
                        Annotation("phrase", parent=link, box=place, mask=draw(st.sampled_from(MASKS)))
                    )
    made += [
        Annotation("text", name, "class")
        for name in draw(st.lists(st.sampled_from(["star", "cup"]), unique=True))
    ]
    return made


@st.composite
def statements(draw: st.DrawFn) -> list[Annotation]:
    """What one source says of the image; nothing twice."""
    return [*_things(draw), *_told(draw)]


def again(annotations: list[Annotation]) -> list[Annotation]:
    """The same statements once more, as another source's own."""
    made: dict[int, Annotation] = {}
    for one in annotations:
        twin = copy.copy(one)
        twin.parent = made.get(id(one.parent), one.parent)
        made[id(one)] = twin
    return list(made.values())


def table(source: str, annotations: list[Annotation], image_id: str = IMAGE.image_id) -> pa.Table:
    store = AnnotationRows(source)
    assert store.add(image_id, annotations, (SIDE, SIDE)) == []
    return store.table()


def judged(draw: st.DrawFn, *tables: pa.Table) -> pa.Table:
    """A doubt source: likelihoods of some of the statements."""
    scores: list[Annotation] = []
    for row in pa.concat_tables(tables).to_pylist():
        measures = ["told"] if row["kind"] == "text" else ["named", "located"]
        for measure in measures:
            value = draw(st.one_of(st.none(), likelihood))
            if value is not None:
                scores.append(Annotation(row["kind"], None, measure, row["annotation_id"], score=value))
    return table("doubt", scores)


def merged(said: pa.Table, **args: Any) -> pa.Table:
    """The rows of a merge of the sources `noisy` (and people's) with `student`, and `doubt` where it is there."""
    merge = Merge(["noisy"], args.pop("student", "student"), doubt="doubt", **args)
    store = AnnotationRows("merged")
    assert store.add(IMAGE.image_id, merge([IMAGE], said)[0], (SIDE, SIDE)) == []
    return store.table()


def parts(rows: pa.Table) -> tuple[list[dict[str, Any]], dict[str, list[str]], dict[str, str], list[str]]:
    """Statements; ids of members and reasons by statement id; ids of the doubted."""
    members: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    doubted: list[str] = []
    said = []
    for row in rows.to_pylist():
        if row["granularity"] == MEMBER:
            members.setdefault(row["parent_id"], []).append(row["text"])
        elif row["granularity"] == CHANGE and row["text"] == "doubted":
            doubted.append(row["parent_id"])
        elif row["granularity"] == CHANGE:
            assert row["parent_id"] not in reasons
            reasons[row["parent_id"]] = row["text"]
        else:
            said.append(row)
    return said, members, reasons, doubted


def contents(rows: pa.Table | list[dict[str, Any]]) -> Counter[Any]:
    """What rows say, and what they hang on says; without who says it."""
    listed = rows.to_pylist() if isinstance(rows, pa.Table) else rows
    by_id = {row["annotation_id"]: row for row in listed}
    return Counter((_said(row), _said(by_id.get(row["parent_id"]))) for row in listed)


def _said(row: dict[str, Any] | None) -> Any:
    if row is None:
        return None
    values = [row["kind"], row["granularity"], row["text"], row["score"]]
    values += [None if row[name] is None else tuple(row[name]) for name in ("span", "box", "quad")]
    values.append(None if row["mask"] is None else row["mask"]["counts"])
    return tuple(values)


EMPTY = ANNOTATIONS.empty_table()
