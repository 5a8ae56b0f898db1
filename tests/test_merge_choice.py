"""Which thresholds stand: none that a merge is worth less by than the originals as they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from data_engine.annotation import Annotation
from specialists.merge_choice import best_by_key
from specialists.merge_measure import HeldOut, measure
from specialists.merge_rows import pages
from specialists.merge_settings import UNCHANGED, MergeSettings, Thresholds
from specialists.merge_truth import word_f1
from tests.merge_statements import judged, merged, parts, statements, table


def said_of(rows: list[dict]) -> Counter:
    """What statements of the measured kinds say, and where: to a hundredth of a pixel."""
    return Counter(
        (row["kind"], row["granularity"], row["text"], rounded(row["box"]))
        for row in rows
        if row["mask"] is None and (row["kind"] != "region" or row["parent_id"] is None)
    )


def rounded(box: list[float] | None) -> tuple[float, ...] | None:
    return None if box is None else tuple(round(side, 2) for side in box)


@given(statements(), statements(), st.data())
def test_under_these_thresholds_the_originals_stay_and_nothing_is_added(noisy, student, data):
    ours, theirs = table("noisy", noisy), table("student", student)
    doubt = judged(data.draw, ours, theirs)
    made, _, _, _ = parts(merged(pa.concat_tables([ours, theirs, doubt]), **UNCHANGED))
    assert said_of(made) == said_of(ours.to_pylist())


PLACE = (0.0, 0.0, 20.0, 20.0)


def held_out(name: str, named: float, student: str, true: str) -> HeldOut:
    """One thing: what the originals call it, how likely the student finds that, its own name for it, and truth's."""
    said = [
        table(source, [Annotation("region", text, "phrase", box=PLACE)])
        for source, text in (("noisy", name), ("student", student))
    ]
    id_ = said[0]["annotation_id"][0].as_py()
    said.append(table("doubt", [Annotation("region", None, "named", id_, score=named)]))
    (page,) = pages(pa.concat_tables(said), SETTINGS).values()
    truth = table("truth", [Annotation("region", true, "phrase", box=PLACE)])
    (right,) = pages(truth, MergeSettings(["truth"], ["-"], [])).values()
    return HeldOut(page, right.rows)


SETTINGS = MergeSettings(["noisy"], ["student"], doubt="doubt")
WRONG = [held_out("cup", 0.4, "star", "cup")] * 4
"""A poor student: it finds the right name unlikely enough for the default of `rename_below`."""
RIGHT = [held_out("cup", 0.2, "star", "star")] * 4


def rename_below(images: list[HeldOut], found: dict[str, dict[str, float]]) -> float | None:
    chosen, _ = best_by_key(found, images, SETTINGS, word_f1)
    return chosen.get("rename_below", {}).get("region/phrase")


def test_what_was_found_stands_where_a_merge_is_worth_most_by_it():
    images = WRONG + RIGHT
    assert rename_below(images, {"rename_below": {"region/phrase": 0.3}}) == 0.3
    assert rename_below(images, {"rename_below": {"region/phrase": 0.3, "phrase": 0.7}}) == 0.3


def test_what_was_not_found_leaves_the_originals_where_the_default_would_spoil_them():
    other = {"doubt_below_named": {"region/phrase": 0.01}}
    assert rename_below(WRONG, other) == rename_below(WRONG, {}) == UNCHANGED["rename_below"]
    chosen, defaults = best_by_key(other, WRONG, SETTINGS, word_f1)
    assert chosen["doubt_below_named"] == {"region/phrase": 0.01} and defaults["region/phrase"] == 0
    told = replace(SETTINGS, thresholds=Thresholds(chosen))
    assert measure(WRONG, told, word_f1)["region/phrase"] == 1


def test_defaults_stand_where_they_do_no_worse():
    assert rename_below(RIGHT, {}) is None
    assert rename_below(RIGHT, {"rename_below": {"region/phrase": 0.1}}) is None


def test_a_kind_that_truth_has_nothing_of_keeps_what_was_found():
    chosen, _ = best_by_key({"doubt_below_named": {"region/brief": 0.3}}, WRONG, SETTINGS, word_f1)
    assert chosen["doubt_below_named"]["region/brief"] == 0.3


def test_where_no_side_counts_the_original_stays_in_its_place():
    ours = table("noisy", [Annotation("region", "cup", "phrase", box=(0.0, 0.0, 4.0, 8.0))])
    theirs = table("student", [Annotation("region", "cup", "phrase", box=(0.0, 0.0, 4.0, 5.0), score=0.9)])
    located = Annotation("region", None, "located", ours["annotation_id"][0].as_py(), score=0.0)
    made, _, _, _ = parts(merged(pa.concat_tables([ours, theirs, table("doubt", [located])]), **UNCHANGED))
    assert said_of(made) == said_of(ours.to_pylist())
