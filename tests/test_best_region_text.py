"""The choice among a region's texts, held against a plain loop over rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe, Where, read_recipe
from data_engine.verdicts import Judge
from filters.best_region_text import CANDIDATES, BestRegionText
from filters.score import MinimumScore
from pipelines.filter import filter_dataset
from tests.toy_sources import write_pictures

BOX = (2, 3, 40, 50)


def table(source: str, said: Sequence[Annotation], image: str = "a" * 32) -> pa.Table:
    rows = AnnotationRows(source)
    assert rows.add(image, said) == []
    return rows.table()


def scores(texts: pa.Table, given: Sequence[float | None], source: str = "clip") -> pa.Table:
    """One score row for each row of `texts` that `given` has a number for."""
    rows = AnnotationRows(source)
    for row, score in zip(texts.to_pylist(), given, strict=True):
        if score is not None:
            judged = Annotation(row["kind"], None, row["granularity"], row["annotation_id"], score=score)
            assert rows.add(row["image_id"], [judged]) == []
    return rows.table()


def region(
    *further: tuple[str, str], text: str | None = "cup", granularity: str = "phrase"
) -> list[Annotation]:
    own = Annotation("region", text, granularity, box=BOX)
    return [own, *(Annotation("region", t, g, own, box=BOX) for t, g in further)]


CUP = region(("a cup", "noun_chunk"), ("a cup on a table", "brief"))


def judge(**filters: Any) -> Judge:
    where = Where(kind=["region"])
    parts = {
        name: FilterPart(use="filters.score:MinimumScore", where=where)
        if not isinstance(rule, tuple)
        else FilterPart(use="filters.score:MinimumScore", where=rule[1])
        for name, rule in filters.items()
    }
    return Judge(parts, {n: r[0] if isinstance(r, tuple) else r for n, r in filters.items()})


def test_the_best_text_is_kept_and_losers_show_their_score() -> None:
    texts = table("texts", CUP)
    said = pa.concat_tables([texts, scores(texts, [0.2, 0.3, 0.25])])
    verdicts = judge(best=BestRegionText("clip"))(said)
    assert verdicts["dropped_by"].to_pylist() == ["best", None, "best", "best", None, "best"]
    assert verdicts["value"].to_pylist()[:3] == [pytest.approx(0.2), None, pytest.approx(0.25)]


def test_a_region_whose_own_text_loses_keeps_its_masks_and_its_other_text() -> None:
    own, *further = CUP
    mask = Annotation("region", parent=own, box=BOX, mask={"size": [60, 60], "counts": "Z10"})
    texts = table("texts", [own, *further, mask])
    said = pa.concat_tables([texts, scores(texts, [0.1, 0.3, 0.2, None])])
    verdicts = judge(best=BestRegionText("clip"))(said)
    assert verdicts["kept"].to_pylist() == [False, True, False, True, False, True, False]
    assert "parent" not in verdicts["dropped_by"].to_pylist()


def test_a_dropped_region_still_takes_all_that_hangs_on_it() -> None:
    own, *further = CUP
    own = Annotation("region", own.text, "phrase", box=BOX, score=0.05)
    texts = table(
        "texts", [own, *(Annotation("region", f.text, f.granularity, own, box=BOX) for f in further)]
    )
    said = pa.concat_tables([texts, scores(texts, [0.1, 0.3, 0.2])])
    low = (MinimumScore(0.5), Where(kind=["region"], source=["texts"]))
    for rules in ({"low": low, "best": BestRegionText("clip")}, {"best": BestRegionText("clip"), "low": low}):
        assert not any(judge(**rules)(said)["kept"].to_pylist()[:3:2])
    first = judge(low=low, best=BestRegionText("clip"))(said)
    assert first["dropped_by"].to_pylist() == ["low", "parent", "best", "parent", "parent", "best"]


def test_what_an_earlier_filter_dropped_does_not_win() -> None:
    texts = table("texts", CUP)
    said = pa.concat_tables([texts, scores(texts, [0.2, 0.3, 0.9])])
    no_captions = (
        lambda rows: pa.array([False] * rows.num_rows),
        Where(granularity=["brief"], source=["texts"]),
    )
    verdicts = judge(no=no_captions, best=BestRegionText("clip"))(said)
    assert verdicts["kept"].to_pylist()[:3] == [False, True, False]


def test_equal_scores_keep_the_regions_own_text_else_the_first_said() -> None:
    texts = table("texts", CUP)
    own = scores(texts, [0.3, 0.3, 0.3])
    further = scores(texts, [0.2, 0.3, 0.3])
    for order in ([texts, own], [own, texts]):
        said = pa.concat_tables(order)
        kept = dict(
            zip(said["annotation_id"].to_pylist(), BestRegionText("clip")(said).to_pylist(), strict=True)
        )
        assert [kept[i] for i in texts["annotation_id"].to_pylist()] == [True, False, False]
    said = pa.concat_tables([further, texts])
    assert BestRegionText("clip")(said).to_pylist()[-3:] == [False, True, False]


def test_a_text_without_a_score_neither_wins_nor_loses() -> None:
    texts = table("texts", CUP)
    said = pa.concat_tables([texts, scores(texts, [0.2, None, 0.25])])
    assert BestRegionText("clip")(said).to_pylist() == [False, True, True, False, True]


def test_other_scorers_are_not_asked_but_their_scores_go_with_a_loser() -> None:
    texts = table("texts", CUP)
    said = pa.concat_tables(
        [texts, scores(texts, [0.1, 0.3, 0.2]), scores(texts, [0.9, 0.1, 0.5], source="other")]
    )
    assert BestRegionText("clip")(said).to_pylist() == [False, True, False] * 3


def test_a_shard_without_one_score_stays_as_it_is() -> None:
    one, two = (table("texts", CUP, image * 32) for image in "ab")
    assert BestRegionText("clip")(pa.concat_tables([one, two])).to_pylist() == [True] * 6
    single = [table("texts", region(), image * 32) for image in "ab"]
    assert BestRegionText("clip")(pa.concat_tables(single)).to_pylist() == [True, True]
    assert BestRegionText("clip")(one.slice(0, 0)).to_pylist() == []


def test_over_a_data_set_the_filter_sees_the_texts_and_scores_of_all_sources(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 2)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"))
    dataset = Dataset.open(str(tmp_path / "ds"))
    (shard,) = dataset.shards
    found, captions = AnnotationRows("detector"), AnnotationRows("captions")
    for image in sql(dataset, "SELECT image_id FROM images ORDER BY ALL")["image_id"].to_pylist():
        own = Annotation("region", "cup", "phrase", box=BOX, score=0.9)
        assert found.add(image, [own]) == []
        parent = found.table()["annotation_id"][-1].as_py()
        assert captions.add(image, [Annotation("region", "a red cup", "brief", parent, box=BOX)]) == []
    clip = pa.concat_tables(
        [scores(found.table(), [0.1, 0.4], "clip"), scores(captions.table(), [0.2, 0.3], "clip")]
    )
    for name, rows in (("detector", found.table()), ("captions", captions.table()), ("clip", clip)):
        dataset.write_annotations(name, shard, rows, {"stage": name, "fingerprint": name})
    best = FilterPart(
        use="filters.best_region_text:BestRegionText", args={"scorer": "clip"}, where=Where(kind=["region"])
    )
    summary = filter_dataset(dataset, Recipe(name="best", filters={"best-text": best}).check())
    assert (summary.seen, summary.kept, dict(summary.dropped)) == (8, 4, {"best-text": 4})
    lost = sql(
        dataset,
        "SELECT text, round(value, 2)::DOUBLE AS value FROM regions JOIN verdicts USING (annotation_id) "
        "WHERE dropped_by = 'best-text' ORDER BY text",
    )
    assert [tuple(row.values()) for row in lost.to_pylist()] == [
        ("a red cup", pytest.approx(0.3)),
        ("cup", pytest.approx(0.1)),
    ]
    wrong = best.model_copy(update={"args": {"scorer": "blip"}})
    with pytest.raises(SpecialistError, match="none has a score by 'blip'"):
        filter_dataset(dataset, Recipe(name="best", filters={"best-text": wrong}))


def test_the_recipe_on_the_recipes_page_is_sound() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "recipes.md").read_text()
    (example,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "best-text" in block
    ]
    recipe = read_recipe("name: example\n" + example, "docs/recipes.md")
    assert recipe.ordered() == ["detector", "captions", "chunks", "clip"]


def plain(rows: list[dict[str, Any]], scorer: str) -> list[tuple[bool, float | None]]:
    """Row by row: whether it is kept, and its value."""

    def is_score(r: dict[str, Any]) -> bool:
        return r["text"] is None and r["box"] is None and r["mask"] is None and r["score"] is not None

    given: dict[str, float] = {}
    for r in rows:
        if is_score(r) and r["source"] == scorer:
            given[r["parent_id"]] = max(r["score"], given.get(r["parent_id"], 0.0))
    best: dict[str, dict[str, Any]] = {}
    candidates = [
        r for r in rows if r["kind"] == "region" and r["text"] is not None and r["granularity"] in CANDIDATES
    ]
    for r in candidates:
        name = r["parent_id"] or r["annotation_id"]
        if r["annotation_id"] not in given:
            continue
        rival = best.get(name)
        if rival is None or (given[r["annotation_id"]], r["parent_id"] is None) > (
            given[rival["annotation_id"]],
            rival["parent_id"] is None,
        ):
            best[name] = r
    winners = {r["annotation_id"] for r in best.values()}
    lost = {r["annotation_id"] for r in candidates} & given.keys() - winners
    return [
        (
            r["annotation_id"] not in lost and not (is_score(r) and r["parent_id"] in lost),
            r["score"] if is_score(r) else given.get(r["annotation_id"]),
        )
        for r in rows
    ]


SCORES = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0])
TEXTS = st.tuples(
    st.sampled_from(["cup", "a cup", None]), st.sampled_from([*CANDIDATES, "ocr", "proposal", "change"])
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), TEXTS, SCORES, st.lists(st.tuples(TEXTS, SCORES, SCORES), max_size=5)
        ),
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_the_filter_says_what_a_loop_over_rows_says(regions, random) -> None:
    texts, marks, others = AnnotationRows("texts"), [], []
    for image, (text, granularity), score, further in regions:
        own = Annotation("region", text, granularity, box=BOX)
        said = [own, *(Annotation("region", t, g, own, box=BOX) for (t, g), _, _ in further)]
        assert texts.add(image * 32, said) == []
        marks += [score, *(one for _, one, _ in further)]
        others += [None, *(one for _, _, one in further)]
    said = texts.table()
    both = [said, scores(said, marks), scores(said, marks[::-1]), scores(said, others, source="other")]
    both = pa.concat_tables(both)
    order = list(range(both.num_rows))
    random.shuffle(order)
    both = both.take(pa.array(order, pa.int64()))
    rule = BestRegionText("clip")
    rows = both.to_pylist()
    if all(mark is None for mark in marks):
        return
    expected = plain(rows, "clip")
    kept = rule(both).to_pylist()
    assert kept == [kept for kept, _ in expected]
    assert rule.values(both).to_pylist() == [value for _, value in expected]
    # Of each region with a scored text exactly one scored text is left.
    regions_of = [
        (r["parent_id"] or r["annotation_id"], k)
        for r, k, (_, value) in zip(rows, kept, expected, strict=True)
        if r["text"] and r["granularity"] in CANDIDATES and value is not None
    ]
    assert sorted(name for name, k in regions_of if k) == sorted({name for name, _ in regions_of})
