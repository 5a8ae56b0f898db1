"""What filters may be given in any state: each trouble is one clear line, and nothing is dropped without a reason."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_engine.annotation import Annotation, AnnotationRows
from data_engine.dataset import Dataset
from data_engine.errors import FdeError, IncompleteError, ModelLoadError, RecipeError, SpecialistError
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import FilterPart, Recipe, Where, read_recipe
from data_engine.schema import ANNOTATIONS
from data_engine.shards import write_shard
from data_engine.verdicts import Judge
from filters.blacklisted import Blacklisted
from filters.boilerplate import Boilerplate
from filters.common_text import CommonText
from filters.most_boxes import MostBoxes
from filters.nms import Nms
from filters.personal_data import PersonalData
from filters.read_text import ReadText
from filters.repetition import Repetition
from filters.sane_box import SaneBox
from filters.score import MinimumScore
from filters.soft_nms import SoftNms
from filters.text_length import TextLength
from pipelines.filter import filter_dataset
from tests.toy_sources import write_pictures

SCORED = {
    "score": FilterPart(use="filters.score:MinimumScore", args={"minimum": 0.5}),
    "sane": FilterPart(use="filters.sane_box:SaneBox"),
    "nms": FilterPart(use="filters.nms:Nms"),
    "soft": FilterPart(use="filters.soft_nms:SoftNms", args={"minimum": 0.5}),
    "most": FilterPart(use="filters.most_boxes:MostBoxes", args={"most": 2}),
}

PLAIN = [Blacklisted(), Boilerplate(), CommonText(), PersonalData(), ReadText(), Repetition(), TextLength()]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Four images in two shards, of each the same two boxes."""
    write_pictures(tmp_path / "pictures", 4)
    ingest(str(tmp_path / "pictures"), str(tmp_path / "ds"), shard_size=2)
    made = Dataset.open(str(tmp_path / "ds"))
    for shard in made.shards:
        rows = AnnotationRows("detector")
        for batch in made.image_batches(shard, 100, ["image_id"]):
            for image_id in batch["image_id"].to_pylist():
                rows.add(
                    image_id, [Annotation("region", c, "phrase", box=(1, 1, 9, 9), score=0.9) for c in "ab"]
                )
        write_shard(made.store, f"annotations/detector/{shard}.parquet", rows.table(), ANNOTATIONS, {})
    return made


def rewrite(dataset: Dataset, shard: str, change: Any) -> None:
    path = Path(dataset.url) / "annotations" / "detector" / f"{shard}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def one_line(error: FdeError) -> bool:
    return bool(error.hint) and "\n" not in error.message + error.hint and len(error.message) < 700


@pytest.mark.parametrize("column", ["box", "score", "image_id"])
def test_a_shard_without_a_column_is_told_by_name_and_the_others_are_judged(dataset, caplog, column):
    rewrite(dataset, "00001", lambda table: table.drop_columns(column))
    with pytest.raises(IncompleteError, match="1 of 2 shards") as caught:
        filter_dataset(dataset, Recipe(name="f", filters=SCORED))
    assert one_line(caught.value)
    assert (
        f"detector/00001.parquet has no column '{column}'" in caplog.text and "Traceback" not in caplog.text
    )
    assert dataset.store.files("verdicts/0") == ["00000.parquet"]


def test_a_column_of_another_type_is_told(dataset, caplog):
    rewrite(
        dataset,
        "00000",
        lambda t: t.set_column(t.column_names.index("score"), "score", pa.array(["high"] * t.num_rows)),
    )
    with pytest.raises(IncompleteError, match="1 of 2 shards"):
        filter_dataset(dataset, Recipe(name="f", filters=SCORED))
    assert "annotations/detector/00000.parquet is no table of annotations" in caplog.text


def test_empty_shards_have_empty_verdicts_and_are_counted(dataset):
    rewrite(dataset, "00000", lambda table: table.slice(0, 0))
    summary = filter_dataset(dataset, Recipe(name="f", filters=SCORED))
    assert (summary.seen, summary.kept, summary.images, summary.shards_done) == (4, 4, 4, 2)
    dataset.store.delete("annotations/detector/00000.parquet")
    again = filter_dataset(dataset, Recipe(name="f", filters=SCORED))
    assert (again.seen, again.images, again.shards_done) == (4, 4, 1)
    assert dataset.store.files("verdicts/0") == ["00000.parquet", "00001.parquet"]


@pytest.mark.parametrize(("score", "kept"), [(None, 8), (math.nan, 0)])
def test_without_a_score_boxes_stay_and_with_one_that_is_no_number_they_fall(dataset, score, kept):
    for shard in dataset.shards:
        rewrite(
            dataset,
            shard,
            lambda t: t.set_column(
                t.column_names.index("score"), "score", pa.array([score] * t.num_rows, pa.float32())
            ),
        )
    summary = filter_dataset(dataset, Recipe(name="f", filters=SCORED))
    assert (summary.seen, summary.kept, summary.dropped["score"]) == (8, kept, 8 - kept)
    assert sql(dataset, "SELECT count(*) AS n FROM verdicts WHERE kept")["n"].to_pylist() == [kept]


@pytest.mark.parametrize(
    "rule",
    [Nms(), SoftNms(0.5), MostBoxes(1), MinimumScore(0.5), SaneBox()],
    ids=lambda rule: type(rule).__name__,
)
def test_scores_that_are_no_numbers_come_last_and_never_stop_a_filter(rule):
    rows = AnnotationRows("s")
    rows.add(
        "i" * 32, [Annotation("region", "cup", "phrase", box=(1, 1, 9, 9), score=s) for s in (0.6, 0.9, None)]
    )
    said = rows.table()
    scores = pa.array([math.nan, 0.9, None], pa.float32())
    said = said.set_column(said.column_names.index("score"), "score", scores)
    sizes = pa.table({"image_id": ["i" * 32], "width": [20], "height": [20]})
    verdicts = Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": rule})(said, 0, sizes)
    kept = verdicts["kept"].to_pylist()
    # The first has no sure score, so that it wins against no other; the third counts as sure.
    assert not kept[0] or isinstance(rule, SaneBox)
    assert kept[2] and len(kept) == 3


LONG = "A dog sits on a chair beside a table with a cup. " * 2100
ODD = [
    LONG,
    "x" * 100_000,
    " ".join(str(i) for i in range(17_000)),
    "كلب صغير يجلس على الأريكة بجانب النافذة",
    "\u202eכלב קטן יושב על הספה\u202c ליד החלון",
    "👩‍👩‍👧‍👦 🐕‍🦺 🏳️‍🌈 at the 🏖️ with 🍦",
    "e\u0301te\u0301 \u200b\u200d\ufeff \U0010ffff",
    "",
    " \t\n",
]


@pytest.mark.parametrize("rule", PLAIN, ids=lambda rule: type(rule).__name__)
def test_any_text_is_judged_alone_and_as_it_stands(rule):
    rows = AnnotationRows("s")
    rows.add("i" * 32, [Annotation("text", f"{number}", "brief") for number in range(len(ODD) + 1)])
    said = rows.table().set_column(4, "text", pa.array([*ODD, None], pa.string()))
    judge = Judge({"it": FilterPart(use="filters.nms:Nms", where=Where(kind=["text"]))}, {"it": rule})
    verdicts = judge(said)
    assert verdicts["annotation_id"] == said["annotation_id"]
    alone = [judge(said.slice(number, 1))["kept"][0].as_py() for number in range(said.num_rows)]
    assert verdicts["kept"].to_pylist() == alone and alone[-1], "a row without text stays"
    if isinstance(rule, TextLength):
        words = [len(text.split()) for text in ODD]
        assert rule.values(said).to_pylist()[:-1] == words
    if isinstance(rule, Repetition):
        assert alone[0] is False and all(alone[2:])


def test_language_and_parts_of_any_text():
    pytest.importorskip("py3langid")
    pytest.importorskip("spacy")
    from data_engine.image import Image
    from filters.language import Language
    from specialists.text_elements import TextElements

    rows = AnnotationRows("s")
    rows.add("i" * 32, [Annotation("text", text, "brief") for text in ODD])
    said = rows.table()
    verdicts = Judge({"it": FilterPart(use="filters.nms:Nms")}, {"it": Language()})(said)["kept"].to_pylist()
    assert verdicts[0] and not verdicts[3] and not verdicts[4]
    (parts,) = TextElements()([Image("i" * 32, None)], said)  # type: ignore[arg-type]
    # 100 kB are not parsed and get no row; the filters on parts leave such texts as they are.
    short = [text for text in ODD if 0 < len(text) <= 20_000]
    assert len(parts) == len(short)


RECIPES = [
    ('{a: {use: "filters.nmss:Nms"}}', "no module 'filters.nmss' - did you mean 'filters.nms'?"),
    ('{a: {use: "filter.sane_box:SaneBox"}}', "did you mean 'filters.sane_box'?"),
    ('{a: {use: "filters.nms:Nmz"}}', "filters.nms has no 'Nmz' - did you mean 'Nms'?"),
    ('{a: {use: "filters.nms:Nms", args: {iuo: 0.5}}}', "takes no argument 'iuo' - did you mean 'iou'?"),
    ('{a: {use: "filters.nms:Nms", wher: {kind: text}}}', "unknown key 'filters.a.wher' - did you mean 'where'?"),
    ('{a: {use: "filters.nms:Nms", where: {kin: text}}}', "'filters.a.where.kin' - did you mean 'kind'?"),
    ('{a: {use: "filters.nms:Nms", where: {kind: txt}}}', "'txt' is no kind - did you mean 'text'?"),
    ('{a: {use: "filters.score:MinimumScore"}}', "needs the argument 'minimum'"),
    ('{a: {use: "nms"}}', "'nms' is no reference"),
    ('{parent: {use: "filters.nms:Nms"}}', "'parent' cannot be a filter's name"),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "told"), RECIPES)
def test_what_a_recipe_misspells_is_told_with_what_was_meant(filters, told):
    with pytest.raises(RecipeError) as caught:
        read_recipe(f"name: x\nfilters: {filters}", "x.yaml")
    assert told in caught.value.message and one_line(caught.value)


@pytest.mark.parametrize(("args", "error"), [({"iou": [1]}, SpecialistError), ({"iou": 2}, RecipeError)])
def test_settings_of_a_wrong_kind_are_one_line(dataset, args, error):
    with pytest.raises(error) as caught:
        filter_dataset(dataset, Recipe(name="f", filters={"a": FilterPart(use="filters.nms:Nms", args=args)}))
    assert one_line(caught.value)


def test_a_setting_that_only_the_columns_refuse_is_one_line(dataset):
    wrong = FilterPart(use="filters.score:MinimumScore", args={"minimum": "high"})
    with pytest.raises(SpecialistError, match=r"filters\.a raised") as caught:
        filter_dataset(dataset, Recipe(name="f", filters={"a": wrong}))
    assert one_line(caught.value)


def test_weights_that_are_missing_are_told_before_any_shard_is_judged(dataset, tmp_path):
    part = FilterPart(use="tests.toy_filters:NeedsWeights", args={"weights": str(tmp_path / "none.onnx")})
    with pytest.raises(ModelLoadError, match=r"filters\.model: .*none\.onnx") as caught:
        filter_dataset(dataset, Recipe(name="f", filters={"model": part}))
    assert one_line(caught.value) and not dataset.store.files("verdicts/0")


def test_a_source_that_is_not_there_is_told(dataset, caplog):
    part = FilterPart(use="filters.nms:Nms", where=Where(source=["detektor"]))
    assert filter_dataset(dataset, Recipe(name="f", filters={"nms": part})).kept == 8
    assert (
        "filters.nms: the data set has no annotations by 'detektor' - did you mean 'detector'?" in caplog.text
    )


def test_an_image_without_anything_left_is_reported(dataset):
    low = Recipe(name="f", filters={"low": FilterPart(use="filters.score:MinimumScore", args={"minimum": 1})})
    from pipelines.funnel import funnel

    summary = filter_dataset(dataset, low)
    assert summary.bare == 4 and "  images of which nothing is kept: 4" in list(funnel(low, summary))
    verdicts = sql(dataset, "SELECT dropped_by, count(*) AS n FROM verdicts GROUP BY 1").to_pylist()
    assert verdicts == [{"dropped_by": "low", "n": 8}]
    assert pc.sum(sql(dataset, "SELECT count(*) AS n FROM images")["n"]).as_py() == 4
