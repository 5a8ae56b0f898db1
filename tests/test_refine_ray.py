"""A round of refinement on a real Ray cluster comes to what it comes to in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.rounds import last_accepted
from data_engine.runner.cluster import connect
from data_engine.runner.progress import Reporter
from data_engine.scenes.world import find_world
from data_engine.scenes.write import make_scenes
from pipelines.refine import refine
from tests.test_refine import recipe, values

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pycocoevalcap")
pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    ray, ours = connect(None)
    yield ray
    if ours:
        ray.shutdown()


def refined(pictures: Path, folder: Path, runner: str) -> Dataset:
    ingest(str(pictures), str(folder / "ds"), shard_size=20)
    (folder / "trainings").mkdir()
    dataset = Dataset.open(str(folder / "ds"))
    summary = refine(
        dataset, recipe((1.0,)), runner=runner, reporter=Reporter(terminal=False), say=lambda _: None
    )
    assert [verdict.accepted for verdict in summary.verdicts] == [True] and last_accepted(dataset) == 1
    return dataset


def test_labels_and_figures_are_those_of_one_process(tmp_path, cluster):
    make_scenes(tmp_path / "scenes", 40, 7, size=(128, 96), world=find_world("target"))
    for name in ("inline", "ray"):
        (tmp_path / name).mkdir()
    inline, on_ray = (refined(tmp_path / "scenes", tmp_path / name, name) for name in ("inline", "ray"))
    assert len(inline.shards) == 2
    for shard in inline.shards:
        for source in ("noisy", "student-1", "merged-1"):
            expected = inline.annotations(source, shard)
            assert expected.num_rows and on_ray.annotations(source, shard).equals(expected)
    for round_, subject in ((0, "raw"), (1, "merged-1")):
        assert values(on_ray, round_, subject) == values(inline, round_, subject)
