"""Rounds of refinement with a toy trainer, student and merge: what is accepted, resumed, and refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from data_engine.dataset import Dataset
from data_engine.errors import DatasetError, RecipeError
from data_engine.held_out import is_held_out
from data_engine.ingest.run import ingest
from data_engine.quality.selected import Selected
from data_engine.recipe import read_recipe
from data_engine.rounds import last_accepted
from data_engine.scenes.world import find_world
from data_engine.scenes.write import TRUTH, make_scenes
from data_engine.shards import read_table
from data_engine.storage import Store
from pipelines.refine import refine, table
from tests.ingested import rows

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocoevalcap")

SCENES, SHARD = 40, 20

NOTHING = {"use": "filters.image_size:ImageSize", "args": {"minimum_side": 5000}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, SCENES, 7, size=(128, 96), world=find_world("target"))
    return folder


def make_dataset(pictures: Path, folder: Path) -> Dataset:
    url = str(folder / "dataset")
    ingest(str(pictures), url, shard_size=SHARD)
    (folder / "trainings").mkdir()
    return Dataset.open(url)


@pytest.fixture
def dataset(pictures: Path, tmp_path: Path) -> Dataset:
    return make_dataset(pictures, tmp_path)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A data set refined by two of three rounds: the second student knows no more than the first."""
    dataset = make_dataset(pictures, tmp_path_factory.mktemp("finished"))
    return dataset, *run(dataset, recipe((1.0, 1.0, 1.0)))


def recipe(share: tuple[float, ...], change=None, **section):
    """Noisy labels, and students that know these shares of the truth."""
    student = {
        "use": "tests.toy_refinement:ToyTrainer",
        "args": {"share": list(share), "start": "none"},
    }
    noise = {
        "use": "specialists.noise:Noise",
        "needs": ["truth"],
        "args": {"rates": {"mislabelled": 0.5, "attribute_flipped": 0.8}, "classes": ["cat", "key", "mug"]},
        "batch": 64,
    }
    toy = {"use": "tests.toy_refinement:ToyStudent", "needs": ["truth"]}
    data = {
        "name": "toy",
        "specialists": {"noisy": noise},
        "filters": {"tiny": {"use": "filters.box_size:MinimumSide", "args": {"pixels": 4}, "where": {"source": "noisy"}}},
        "refine": {
            "learn": ["noisy"],
            "held_out": 0.4,
            "truth": "truth",
            "rounds": len(share),
            "student": student,
            "relabel": toy,
            "merge": {"use": "tests.toy_refinement:ToyMerge"},
            **section,
        },
    }  # fmt: skip
    if change is not None:
        change(data)
    return read_recipe(yaml.safe_dump(data), "toy.yaml")


def run(dataset: Dataset, chosen, **settings):
    lines: list[str] = []
    return refine(dataset, chosen, runner="inline", say=lines.append, **settings), lines


def trainings(dataset: Dataset) -> int:
    return len(list((Path(dataset.url).parent / "trainings").iterdir()))


def values(dataset: Dataset, round_: int, subject: str) -> dict[str, float]:
    found = read_table(dataset.store, f"rounds/{round_}/quality.parquet").to_pylist()
    return {row["measure"]: row["value"] for row in found if row["subject"] == subject}


def test_rounds_go_on_while_labels_gain(finished):
    dataset, summary, lines = finished
    assert [v.accepted for v in summary.verdicts] == [True, True] and summary.used == 2
    assert [v.gained for v in summary.verdicts] == [True, False] and last_accepted(dataset) == 2
    assert "no gain beyond chance" in summary.verdicts[1].reason
    raw, kept, merged = (values(dataset, n, s) for n, s in ((0, "raw"), (0, "kept"), (1, "merged-1")))
    assert raw["regions: F1"] < 0.8 and kept["brief captions: all true"] < 0.6
    assert merged["regions: F1"] == merged["brief captions: all true"] == 1
    assert merged["phrases of captions: recall@1"] > 0.95
    second = json.loads((Path(dataset.url) / "models" / "2" / "training.json").read_text())
    assert second["sources"] == ["merged-1"] and second["rows"] > 0
    assert any("round 1: training" in line for line in lines)
    shown = "\n".join(table(dataset, 2))
    assert "round 2" in shown and "regions: F1" in shown


def test_the_same_command_again_does_nothing_more(finished):
    dataset, summary, _ = finished
    again, lines = run(dataset, recipe((1.0, 1.0, 1.0)))
    assert again == summary and trainings(dataset) == 2
    assert "round 1: the student is trained already" in lines


def test_held_out_images_teach_nothing(finished):
    dataset, *_ = finished
    few = json.loads((Path(dataset.url) / "models" / "1" / "training.json").read_text())["rows"]
    kept = [row for row in rows(dataset.url, "verdicts/0") if row["kept"] and row["source"] == "noisy"]
    out = is_held_out(pa.array([row["image_id"] for row in kept]), 0.4)
    assert few == (~out).sum() < len(kept)


def test_a_round_judges_what_it_merged_and_nothing_else(finished):
    dataset, *_ = finished
    sources = [{row["source"] for row in rows(dataset.url, f"verdicts/{n}")} for n in (0, 1)]
    assert sources == [{"noisy", "truth"}, {"merged-1"}]


def test_a_round_whose_labels_get_worse_stays_and_is_not_used(dataset):
    summary, _ = run(dataset, recipe((0.1, 1.0)))
    (verdict,) = summary.verdicts
    assert not verdict.accepted and summary.used == 0 and last_accepted(dataset) == 0
    assert "regions: F1 fell by" in verdict.reason and "interval" in verdict.reason
    assert rows(dataset.url, "annotations/merged-1") and rows(dataset.url, "verdicts/1")
    found = read_table(dataset.store, "rounds/1/quality.parquet").to_pylist()
    assert {row["accepted"] for row in found} == {False} and {row["reason"] for row in found} == {
        verdict.reason
    }


@pytest.mark.parametrize(("loses", "measure"), [("mask", "masks: F1"), ("brief", "brief captions: all true")])
def test_what_a_merge_loses_altogether_counts_as_lost(dataset, loses, measure):
    """Whatever else it mends."""
    chosen = recipe((1.0,), merge={"use": "tests.toy_refinement:ToyMerge", "args": {"loses": loses}})
    summary, _ = run(dataset, chosen)
    merged = values(dataset, 1, "merged-1")
    assert summary.used == 0 and merged["regions: F1"] == 1
    assert f"{measure} fell by" in summary.verdicts[0].reason and merged[measure] == 0


def test_another_student_takes_back_the_rounds_that_build_on_the_first(dataset):
    run(dataset, recipe((1.0, 1.0)))
    summary, lines = run(dataset, recipe((0.9, 0.9)), rounds=1)
    assert any("have changed since it was begun" in line for line in lines)
    assert last_accepted(dataset) == summary.used == 1
    assert not (Path(dataset.url) / "rounds" / "2" / "round.json").exists()


@pytest.mark.parametrize("step", [pytest.param("training", marks=pytest.mark.slow), "round"])
def test_a_round_interrupted_in_the_middle_goes_on(dataset, step, tmp_path):
    """kill -9 in the training, or anything lost after it: the same command ends as an uninterrupted one."""

    def dies(data):
        data["refine"]["student"]["args"]["dies"] = 1

    chosen = recipe((1.0,), change=dies if step == "training" else None)
    if step == "training":
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(json.loads(chosen.model_dump_json())))
        command = [sys.executable, "-m", "pipelines", "refine", dataset.url, "-r", str(tmp_path / "r.yaml"), "--runner", "inline"]  # fmt: skip
        assert subprocess.run(command, capture_output=True, check=False).returncode == -9
        assert not (Path(dataset.url) / "rounds" / "1" / "round.json").exists()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "the labels to use are what is kept of merged-1 in round 1" in done.stdout
        assert trainings(dataset) == 2
    else:
        whole, _ = run(dataset, chosen)
        (Path(dataset.url) / "rounds" / "1" / "round.json").unlink()
        (Path(dataset.url) / "verdicts" / "1" / "00001.parquet").unlink()
        (Path(dataset.url) / "annotations" / "merged-1" / "00001.parquet").unlink()
        assert run(dataset, chosen)[0] == whole and trainings(dataset) == 1


def test_without_truth_a_student_is_held_against_the_one_before(dataset):
    # What it answers comes from the truth, what it is compared with is noisy: here the start says nothing.
    summary, _ = run(dataset, recipe((1.0, 0.2), truth=None))
    assert [v.accepted for v in summary.verdicts] == [True, False]
    assert "regions: F1 rose" in summary.verdicts[0].reason
    assert values(dataset, 0, "student-0")["regions: F1"] == 0 and not values(dataset, 0, "kept")
    found = read_table(dataset.store, "rounds/1/quality.parquet").to_pylist()
    assert not any(row["decides"] for row in found if row["subject"] == "merged-1")
    assert 0 < values(dataset, 1, "merged-1")["regions: F1"] < 1


def test_calibration_chooses_arguments_of_the_merge(dataset):
    part = {"use": "tests.toy_refinement:toy_calibration", "args": {"prefer": "originals"}}
    summary, _ = run(dataset, recipe((1.0,), calibrate=part))
    assert not summary.verdicts[0].gained
    assert values(dataset, 1, "merged-1")["regions: F1"] == values(dataset, 0, "kept")["regions: F1"]
    # One half of the 40 % calibrates, so the other alone judges.
    found = read_table(dataset.store, "rounds/1/quality.parquet").to_pylist()
    judging = Selected(dataset, 0.4, {}, beyond=0.2)
    count = sum(b.num_rows for s in dataset.shards for b in judging.image_batches(s, 99, ["image_id"]))
    assert {row["images"] for row in found if row["measure"] == "brief captions: all true"} == {count}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["filters"].update(all=NOTHING), "nothing that noisy says"),
        (lambda d: d["refine"].update(held_out=0.0), "of 40 images 0 are held out"),
    ],
)
def test_what_cannot_be_refined_is_refused_in_one_line_before_any_training(dataset, change, message):
    chosen = recipe((1.0,), change=change)
    with pytest.raises(DatasetError, match=message) as caught:
        run(dataset, chosen)
    assert "\n" not in caught.value.message and caught.value.hint and not trainings(dataset)


def test_one_image_is_too_few(tmp_path):
    make_scenes(tmp_path / "one", 1, 3, size=(128, 96))
    ingest(str(tmp_path / "one"), str(tmp_path / "dataset"))
    (tmp_path / "trainings").mkdir()
    dataset = Dataset.open(str(tmp_path / "dataset"))
    with pytest.raises(DatasetError, match="of 1 images [01] are held out"):
        run(dataset, recipe((1.0,)))


def without_truth_of(pictures: Path, folder: Path, bare) -> Path:
    """The same scenes, of some of which (by image_id) truth says nothing."""
    folder.mkdir()
    (folder / "images").symlink_to(pictures / "images")
    (folder / "scenes.json").write_text((pictures / "scenes.json").read_text())
    with (folder / TRUTH).open("w") as truth:
        for line in (pictures / TRUTH).read_text().splitlines():
            fields = json.loads(line)
            if bare(hashlib.sha256((pictures / fields["file"]).read_bytes()).hexdigest()[:32]):
                fields["annotations"] = []
            truth.write(json.dumps(fields) + "\n")
    return folder


def test_truth_that_says_nothing_of_held_out_images_is_told(pictures, tmp_path):
    folder = without_truth_of(pictures, tmp_path / "bare", lambda i: is_held_out(pa.array([i]), 0.4)[0])
    dataset = make_dataset(folder, tmp_path)
    with pytest.raises(DatasetError, match="truth says nothing of the .* held-out images"):
        run(dataset, recipe((1.0,)))
    assert not trainings(dataset)


def test_images_without_objects_are_images(pictures, tmp_path):
    """What is found in them is wrong, and that nothing is found is right: neither is a division by nothing."""
    dataset = make_dataset(
        without_truth_of(pictures, tmp_path / "some", lambda i: i[0] in "01234567"), tmp_path
    )
    summary, _ = run(dataset, recipe((1.0,)))
    assert summary.used == 1 and values(dataset, 1, "merged-1")["regions: F1"] == 1


def test_a_recipe_without_the_section_and_a_data_set_elsewhere_are_refused(dataset):
    chosen = recipe((1.0,))
    with pytest.raises(RecipeError, match="no section `refine`"):
        run(dataset, chosen.model_copy(update={"refine": None}))
    far = Dataset(Store("memory://somewhere/dataset"), dataset.info)
    with pytest.raises(DatasetError, match="is no local folder"):
        run(far, chosen)
