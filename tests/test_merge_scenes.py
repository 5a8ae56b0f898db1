"""Noisy labels of drawn scenes merged with a better student's, through the runner: the merged ones are nearer to truth."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, RecipeError
from data_engine.ingest.run import ingest
from data_engine.quality.captions import caption_quality
from data_engine.quality.detection import average_precision
from data_engine.query import sql
from data_engine.recipe import Recipe, SpecialistPart, read_recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.attributes import Reader
from data_engine.scenes.write import make_scenes
from pipelines.annotate import annotate
from specialists.merge import Merge
from specialists.merge_calibration import calibrate, calibrated_arguments
from specialists.merge_rows import REASONS
from specialists.said import DESCRIPTIONS

# pycocotools.mask.decode, written before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

RECIPE = """
name: merge
specialists:
  noisy:
    use: specialists.noise:Noise
    needs: [truth]
    args: {seed: 1, rates: &rates {RATES}, classes: &classes [circle, square, triangle, star, heart]}
  student:
    use: specialists.noise:Noise
    needs: [truth]
    args: {seed: 2, rates: {LOW}, classes: *classes}
  doubt:
    use: tests.toy_doubt:Doubts
    needs: [truth, noisy, student]
    args: {sources: [noisy, student]}
  merged:
    use: specialists.merge:Merge
    needs: [noisy, student, doubt]
    args: {originals: [noisy], student: student, doubt: doubt}
"""
ERRORS = (
    "missed", "merged", "split", "jittered", "mislabelled", "invented",
    "wrong_link", "dropped_link", "attribute_flipped", "truncated", "alt_text",
)  # fmt: skip


def recipe() -> Recipe:
    text = RECIPE
    for name, rate in (("RATES", 0.3), ("LOW", 0.1)):
        text = text.replace(name, ", ".join(f"{error}: {rate}" for error in ERRORS))
    return read_recipe(text, "merge.yaml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("merge")
    make_scenes(folder / "scenes", 100, seed=77, size=(160, 120))
    ingest(str(folder / "scenes"), str(folder / "ds"), shard_size=40)
    dataset = Dataset.open(str(folder / "ds"))
    annotate(dataset, recipe(), runner="inline", reporter=Reporter(terminal=False))
    return dataset


def f1_of_links(dataset: Dataset, source: str) -> float:
    """Of phrases with their boxes: those that truth has in a text of that granularity, word for word, at IoU 0.5."""
    query = f"""
        WITH p AS (SELECT DISTINCT annotation_id, image_id, granularity, phrase, box, source FROM triplets)
        SELECT
            (SELECT count(DISTINCT p.annotation_id) FROM p JOIN p t USING (image_id, granularity, phrase)
                WHERE p.source = '{source}' AND t.source = 'truth' AND box_iou(p.box, t.box) >= 0.5) AS right,
            count(*) FILTER (source = '{source}') AS said, count(*) FILTER (source = 'truth') AS true
        FROM p"""
    row = sql(dataset, query).to_pylist()[0]
    return 2 * row["right"] / (row["said"] + row["true"])


def true_texts(dataset: Dataset, source: str) -> float:
    """The mean share of captions of which all is true."""
    judge = Reader().judge
    shares = [caption_quality(dataset, source, "truth", judge, granularity=g).true for g in DESCRIPTIONS]
    return sum(shares) / len(shares)


def figures(dataset: Dataset, source: str) -> tuple[float, float, float]:
    boxes = average_precision(dataset, source, "truth", threshold=0).f1
    return boxes, f1_of_links(dataset, source), true_texts(dataset, source)


def test_merged_statements_are_nearer_to_truth_than_the_originals(dataset):
    assert sql(dataset, "SELECT * FROM failures").num_rows == 0
    noisy, student, merged = (np.array(figures(dataset, s)) for s in ("noisy", "student", "merged"))
    assert (merged > noisy).all()
    # Boxes and links of both together are better than those of either.
    assert (merged[:2] > student[:2]).all()


def test_thresholds_from_held_out_truth_are_worth_no_less_than_the_defaults(dataset):
    found = calibrate(
        dataset,
        "truth",
        ["noisy"],
        "student",
        "doubt",
        held_out=0.5,
        judge="data_engine.scenes.attributes:Reader",
    )
    by_key = {row.key: row for row in found.measured}
    for key in ("region/phrase", "phrase", "text/brief", "text/detailed", "text/more_detailed"):
        assert by_key[key].originals < by_key[key].merged and by_key[key].defaults <= by_key[key].merged
        assert by_key[key].truths >= found.images
    tuned = SpecialistPart(
        use="specialists.merge:Merge",
        args={"originals": ["noisy"], "student": "student", "doubt": "doubt", **found.thresholds},
        needs=["noisy", "student", "doubt"],
    )
    parts = {**recipe().specialists, "tuned": tuned}
    annotate(
        dataset,
        recipe().model_copy(update={"specialists": parts}),
        runner="inline",
        reporter=Reporter(terminal=False),
    )
    noisy, tuned_figures = (np.array(figures(dataset, s)) for s in ("noisy", "tuned"))
    assert (tuned_figures > noisy).all()


def test_what_calibration_gives_a_merge_takes(dataset):
    settings = {"originals": ["noisy"], "student": "student", "doubt": "doubt"}
    found = calibrated_arguments(dataset, "truth", **settings, held_out=0.3, untaught=0.5)
    taught = found["taught"]
    assert found["untaught"] == 0.5 and set(taught) == set(found) - {"taught", "untaught"}
    assert all(taught[name].keys() == found[name].keys() for name in taught)
    # This student has learnt nothing by heart: thresholds are those of the same statements, drawn anew.
    assert taught["weight_student"] == found["weight_student"]
    merge = Merge(**settings, **found)
    assert merge.taught.thresholds.values == taught and merge.settings.thresholds.values != {}
    with pytest.raises(RecipeError, match="untaught"):
        calibrated_arguments(dataset, "truth", **settings, held_out=0.3, untaught=0.2)


def test_without_held_out_images_or_doubt_the_defaults_stand(dataset):
    assert calibrate(dataset, "truth", ["noisy"], "student", held_out=0).thresholds == {}
    found = calibrate(dataset, "truth", ["noisy"], "student", held_out=0.5)
    assert set(found.thresholds) == {"add_above", "weight_student"}
    with pytest.raises(DatasetError, match="nobody"):
        calibrate(dataset, "truth", ["nobody"], "student")


def test_sql_shows_what_was_changed_and_why(dataset):
    rows = sql(dataset, "SELECT * FROM changes WHERE source = 'merged'").to_pylist()
    said = sql(
        dataset, "SELECT annotation_id, source, text FROM annotations WHERE source IN ('noisy', 'student')"
    )
    texts = {row["annotation_id"]: row["text"] for row in said.to_pylist()}
    noisy = {row["annotation_id"] for row in said.to_pylist() if row["source"] == "noisy"}
    reasons = {row["change"] for row in rows}
    assert reasons >= {"agreed", "added", "kept", "renamed", "moved", "chosen", "doubted"} and reasons <= {
        *REASONS
    }
    for row in rows:
        if row["change"] == "doubted":
            assert (
                row["annotation_id"] in noisy
                and row["statement_source"] == "noisy"
                and row["members"] is None
            )
            noisy.remove(row["annotation_id"])
        else:
            assert row["statement_source"] == "merged"
            assert all(member["text"] == texts[member["annotation_id"]] for member in row["members"])
            noisy -= {member["annotation_id"] for member in row["members"]}
    # Every original is in something, or was doubted.
    assert not noisy
    (renamed,) = sql(
        dataset,
        """SELECT count(*) AS n, count(*) FILTER (list_contains(list_transform(members, lambda m: m.text), text)) AS said
        FROM changes WHERE change = 'renamed' AND kind = 'region'""",
    ).to_pylist()
    assert renamed["n"] == renamed["said"] > 0


def test_the_queries_of_the_document_run(dataset):
    text = (Path(__file__).resolve().parents[1] / "docs" / "merging.md").read_text()
    queries = re.findall(r'fde sql DATASET "([^"]*FROM changes[^"]*)"', text)
    assert len(queries) == 3
    for query in queries:
        assert sql(dataset, query.replace("merged-1", "merged")).num_rows
